"""Language codes: one spelling for each language, an English name for prompts, and a suggestion for a wrong code."""

import difflib
import functools

import langcodes
from langcodes.tag_parser import LanguageTagError

from alignx_fast.errors import UserError

# Code and English name of the languages of FLORES-200 and of the usual corpora, in our canonical spelling: ISO 639-1 where it
# exists, else 639-3; a script only where it tells two written forms of one language apart.
_NAMES = """
ace Acehnese|ace-Arab Acehnese in Arabic script|acm Mesopotamian Arabic|acq Ta'izzi-Adeni Arabic|aeb Tunisian Arabic|af Afrikaans
ajp South Levantine Arabic|ak Akan|am Amharic|apc Levantine Arabic|ar Arabic|ars Najdi Arabic|ary Moroccan Arabic
arz Egyptian Arabic|as Assamese|ast Asturian|awa Awadhi|ay Aymara|az Azerbaijani|azb South Azerbaijani|ba Bashkir|bal Baluchi
ban Balinese|be Belarusian|bem Bemba|bg Bulgarian|bho Bhojpuri|bjn Banjar|bjn-Arab Banjar in Arabic script|bm Bambara|bn Bangla
bo Tibetan|br Breton|bs Bosnian|bug Buginese|ca Catalan|ceb Cebuano|cjk Chokwe|ckb Central Kurdish|crh Crimean Tatar|cs Czech
cv Chuvash|cy Welsh|da Danish|de German|dik Southwestern Dinka|dv Divehi|dyu Dyula|dz Dzongkha|ee Ewe|el Greek|en English
en-GB British English|en-US American English|eo Esperanto|es Spanish
es-MX Mexican Spanish|et Estonian|eu Basque|fa Persian|fa-AF Dari
fi Finnish|fj Fijian|fo Faroese|fon Fon|fr French|fr-CA Canadian French|fur Friulian|fuv Nigerian Fulfulde|fy West Frisian
ga Irish|gd Scottish Gaelic|gl Galician|gn Guarani|gu Gujarati|ha Hausa|haw Hawaiian|he Hebrew|hi Hindi|hne Chhattisgarhi
hr Croatian|ht Haitian Creole|hu Hungarian|hy Armenian|ia Interlingua|id Indonesian|ig Igbo|ilo Iloko|is Icelandic|it Italian
ja Japanese|jv Javanese|ka Georgian|kab Kabyle|kac Jingpho|kam Kamba|kbp Kabiye|kea Kabuverdianu|kg Kongo|ki Kikuyu|kk Kazakh
km Khmer|kmb Kimbundu|kn Kannada|knc Central Kanuri|knc-Latn Central Kanuri in Latin script|ko Korean|ks Kashmiri
ks-Deva Kashmiri in Devanagari script|ku Kurdish|ky Kyrgyz|la Latin|lb Luxembourgish|lg Ganda|li Limburgish|lij Ligurian
lmo Lombard|ln Lingala|lo Lao|lt Lithuanian|ltg Latgalian|lua Luba-Lulua|luo Luo|lus Mizo|lv Latvian|mag Magahi|mai Maithili
mg Malagasy|mi Maori|min Minangkabau|min-Arab Minangkabau in Arabic script|mk Macedonian|ml Malayalam|mn Mongolian|mni Manipuri
mos Mossi|mr Marathi|ms Malay|mt Maltese|my Burmese|nb Norwegian Bokmål|nds Low German|ne Nepali|nl Dutch|nn Norwegian Nynorsk
no Norwegian|nqo N'Ko|nso Northern Sotho|nus Nuer|ny Nyanja|oc Occitan|om Oromo|or Odia|pa Punjabi|pag Pangasinan
pap Papiamento|pl Polish|ps Pashto|pt Portuguese|pt-BR Brazilian Portuguese|pt-PT European Portuguese|qu Quechua|rm Romansh
rn Rundi|ro Romanian|ru Russian|rw Kinyarwanda|sa Sanskrit|sat Santali|sc Sardinian|scn Sicilian|sd Sindhi|sg Sango|shn Shan
si Sinhala|sk Slovak|sl Slovenian|sm Samoan|sn Shona|so Somali|sq Albanian|sr Serbian|sr-Latn Serbian in Latin script|ss Swati
st Southern Sotho|su Sundanese|sv Swedish|sw Swahili|szl Silesian|ta Tamil|taq Tamasheq|taq-Tfng Tamasheq in Tifinagh script
te Telugu|tg Tajik|th Thai|ti Tigrinya|tk Turkmen|tl Tagalog|tn Tswana|to Tongan|tpi Tok Pisin|tr Turkish|ts Tsonga|tt Tatar
tum Tumbuka|tw Twi|tzm Central Atlas Tamazight|ug Uyghur|uk Ukrainian|umb Umbundu|ur Urdu|uz Uzbek|vec Venetian|vi Vietnamese
war Waray|wo Wolof|xh Xhosa|yi Yiddish|yo Yoruba|yue Cantonese|zgh Standard Moroccan Tamazight|zh Chinese
zh-Hant Traditional Chinese|zu Zulu
"""
NAMES: dict[str, str] = dict(entry.split(" ", 1) for line in _NAMES.strip().splitlines() for entry in line.split("|"))

# What other corpora call them: individual languages of a macro-language (FLORES-200), the suffixes of FLORES-101, old codes.
_ALIAS_TABLE = """
zho=zh cmn=zh zh-cn=zh zh-hans=zh zho-simpl=zh zho-hans=zh cmn-hans=zh zh-simpl=zh zh-tw=zh-Hant zh-hk=zh-Hant zho-trad=zh-Hant
zho-hant=zh-Hant cmn-hant=zh-Hant zh-trad=zh-Hant swh=sw arb=ar ara=ar fil=tl tgl=tl pes=fa prs=fa-AF pbt=ps npi=ne ory=or
uzn=uz azj=az khk=mn lvs=lv als=sq plt=mg ydd=yi gaz=om zsm=ms kmr=ku nob=nb nno=nn iw=he in=id ji=yi jw=jv mo=ro ayr=ay quy=qu
twi=tw kas=ks kau=knc ekk=et grn=gn gug=gn kon=kg srd=sc sdc=sc bod=bo mya=my
"""
_ALIASES: dict[str, str] = dict(entry.split("=", 1) for line in _ALIAS_TABLE.strip().splitlines() for entry in line.split(" "))

# Country codes and the like that people write by mistake: only for suggestions.
_SLIPS = {"jp": "ja", "cn": "zh", "kr": "ko", "gr": "el", "cz": "cs", "ua": "uk", "dk": "da", "ge": "ka", "swahili": "sw"}


@functools.cache
def check_language(code: object) -> str:
    """The canonical spelling of a language code: "deu", "deu_Latn" and "DE" are "de", "zho_simpl" is "zh".

    Raises:
        UserError: no such language; names the nearest code.
    """
    text = str(code).strip().replace("_", "-")
    for known in (text, _ALIASES.get(text.lower()), _standard(text)):
        if known in NAMES:
            return known
    standard = _standard(text)
    if standard is not None and langcodes.tag_is_valid(standard):
        return standard
    by_name = {name.lower(): known for known, name in NAMES.items()}
    slip = [_SLIPS[text.lower()]] if text.lower() in _SLIPS else []
    near = slip or difflib.get_close_matches(text.lower(), [*NAMES, *_ALIASES, *by_name], n=1, cutoff=0.5)
    best = by_name.get(near[0], _ALIASES.get(near[0], near[0])) if near else "en"
    raise UserError(
        f"Unknown language code {code!r}. Did you mean `{best}` ({NAMES[best]})? Codes are ISO 639, such as de or sw."
    )


def _standard(text: str) -> str | None:
    """BCP 47 form with our spelling of the language, without a script or region that NAMES does not tell apart."""
    try:
        tag = langcodes.get(text, normalize=True)
    except (LanguageTagError, ValueError):
        return None
    if tag.language is None:
        return None
    base = _ALIASES.get(tag.language, tag.language)
    for detail in (tag.script, tag.territory):
        if detail and f"{base}-{detail}" in NAMES:
            return f"{base}-{detail}"
        if detail and f"{base}-{detail}".lower() in _ALIASES:
            return _ALIASES[f"{base}-{detail}".lower()]
    return base


def language_name(code: str) -> str:
    """English name for prompts ("de" -> "German"); a valid code that we have no name for stands for itself."""
    canonical = check_language(code)
    return NAMES.get(canonical, canonical)
