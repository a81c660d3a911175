"""Each filter on pairs that it drops, and on pairs of real translations' kinds that it must keep."""

from collections import Counter

from tests.corpora.conftest import Prepare, distinct, pair

LONG = "word " * 300
DROPPED = [
    ("too long", pair(LONG + "end", "Wort " * 300 + "Ende")),
    ("lengths too different", pair("A sentence that says a good deal more than its translation does.", "Nein.")),
    ("script of another language", pair("The weather is fine today.", "Сегодня хорошая погода.")),
    ("script of another language", pair("The weather is fine today.", "The weather is so fine", tgt_lang="ja")),
    ("repetitions", pair("Very good indeed, this is.", "gut gut gut gut gut gut gut gut gut gut")),
    ("repetitions", pair("What a lovely sunny day this is.", "好好好好好好好好好好好好好好好好好好好好", tgt_lang="zh")),
    ("markup out of step", pair("Press <b>Save</b> now.", "Jetzt Sichern drücken.")),
    ("markup out of step", pair("Hello {name}, you are here.", "Hallo {vorname}, du bist hier.")),
    ("markup out of step", pair("%1$s has left the room.", "%2$s hat den Raum verlassen.")),
    ("numbers out of step", pair("It happened in 1984.", "Es geschah 1973.")),
    ("numbers out of step", pair("She took it 37 times.", "27 Mal nahm sie es.")),
    ("numbers out of step", pair("Error code 127.", "Fehler Nummer 27.")),
    ("numbers out of step", pair("It is 385 miles and 12 feet from 1984.", "Es sind 17 und 500, seit 1973.")),
    ("numbers out of step", pair("It happened in 1984.", "यह १९७३ में हुआ।", tgt_lang="hi")),
    ("same text on both sides", pair("Hotel Alpha", "HOTEL ALPHA")),
]
KEPT = [
    pair("View in Google Play Store", "عرض في متجر Google Play", tgt_lang="ar"),
    pair("He is alleged to have paid her $375,000.", "Er soll ihr 375 Tausend Dollar gezahlt haben."),
    pair("There are 1,234,567 people here.", "Hier sind 1.234.567 Menschen."),
    pair("It was on July 19,1953.", "Es war am 19. Juli 1953."),
    pair("Year 2023", "سنة ٢٠٢٣", tgt_lang="ar"),
    pair("It was at 1 p.m. on Monday.", "Es war am Montag um 13.00 Uhr."),
    pair("The band starts at 8:00 p.m. today.", "Yhtye alkaa soittaa klo 20:00.", tgt_lang="fi"),
    pair("It is 3 p.m. in London.", "Saa 9 mchana huko London.", tgt_lang="sw"),
    pair("Winds of 85 miles an hour, 385 miles south.", "Wind mit 136 Stundenkilometern, 620 Kilometer südlich."),
    pair("Rain of 3 to 6 inches, up to 10 inches.", "Regen von 7 bis 15, höchstens 25 Zentimeter."),
    pair("Rain of 3 to 6 inches, up to 10 inches.", "Sadetta 75-150 millimetriä, jopa 250 millimetriä.", tgt_lang="fi"),
    pair("It was a sunny 80 degrees outside.", "Draußen waren es sonnige 27 Grad."),
    pair("He is 180 pounds heavy now.", "Er ist jetzt 82 Kilo schwer."),
    pair("In the 1980s she was at Yale.", "In den 80ern war sie in Yale."),
    pair("A painting of the 19th century.", "1800-luvun maalaus on tämä.", tgt_lang="fi"),
    pair("I have lived here since 2013.", "ฉันอยู่ที่นี่มาตั้งแต่ปี 2556", tgt_lang="th"),
    pair("There are 2.4 million people here.", "这里有 240 万人口。", tgt_lang="zh"),
    pair("With 77,000 views of it.", "조회 수가 7만 7천을 넘어간다.", tgt_lang="ko"),
    pair("More than 568,000 people came.", "5,68,000 लोग आए थे यहाँ।", tgt_lang="hi"),
    pair("Three of them came.", "3 von ihnen kamen."),
    pair("Smaller than 5 & larger than 3", "kleiner als 5 &amp; größer als 3"),
    pair("100 % of them agree with that.", "100 % sind damit einverstanden."),
    pair("No, no, no.", "いいえ、いいえ、いいえ。", tgt_lang="ja"),
    pair(
        "The arithmetic of these objects now returns subclasses.",
        "datetime.date 或 datetime.datetime 对象的运算现在返回子类。",
        tgt_lang="zh",
    ),
    pair("Hello, how are you today, my friend?", "你好吗?", tgt_lang="zh"),
    pair("Beograd je glavni grad.", "Belgrade is the capital.", "sr", "en"),
]


def test_pairs_are_dropped_for_their_reasons(prepared: Prepare) -> None:
    result = prepared([row for _, row in DROPPED] + distinct(1))
    assert result.dropped == Counter(reason for reason, _ in DROPPED)
    for drop in result.card["drops"]:
        expected = {f"{row['src']} | {row['tgt']}"[:400] for reason, row in DROPPED if reason == drop["reason"]}
        assert {example["text"] for example in drop["examples"]} == expected


def test_what_real_translations_look_like_is_kept(prepared: Prepare) -> None:
    assert prepared(KEPT).dropped == {}


def test_every_filter_can_be_switched_off(prepared: Prepare) -> None:
    off = {
        "max_characters": None,
        "max_length_ratio": None,
        "min_script_share": None,
        "min_distinct_words": None,
        "markup": False,
        "numbers": False,
        "identical": False,
    }
    rows = [row for reason, row in DROPPED if reason != "same text on both sides"]
    assert prepared(rows, filters=off).dropped == {}
