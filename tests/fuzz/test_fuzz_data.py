"""From rows to tokens: no row is lost, spans are the sentences, and no text becomes a control token."""

import json
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st
from support import fuzzing as fuzz

from alignx_fast.config import Settings
from alignx_fast.data.characters import is_broken
from alignx_fast.data.control import ControlTokens, encode_core
from alignx_fast.data.encode import Encoder
from alignx_fast.data.gather import gather
from alignx_fast.data.rows import Dropped, Instruction, Pair, Reason
from alignx_fast.data.spans import as_text, encode_prompts, encode_rows, encode_texts
from alignx_fast.data.templates import WORDINGS, Template
from alignx_fast.errors import UserError

few = (
    st.sampled_from(["tea", "Tea ", "Tee", "chai", "rain", "Regen", "mvua", "</s>", "<|im_end|>", "", "\x00", "a b", "x" * 300])
    | fuzz.texts
)
pairs = st.fixed_dictionaries(
    {"src": few, "tgt": few, "src_lang": fuzz.codes, "tgt_lang": fuzz.codes}, optional={"gid": st.integers(0, 3)}
)
meanings = st.fixed_dictionaries({"texts": st.dictionaries(fuzz.codes, few, min_size=1)}, optional={"id": st.integers(0, 3)})
tasks = st.fixed_dictionaries(
    {"instruction": few, "input": few, "output": few}, optional={"lang": fuzz.codes, "gid": st.integers(0, 3)}
)
limits = st.none() | st.integers(1, 5)
choices = st.fixed_dictionaries(
    {},
    optional={
        "languages": st.just(["en", "de"]),
        "both_directions": st.booleans(),
        "dev_pairs": st.integers(1, 9),
        "translation_share": st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]),
        "max_length": st.integers(16, 90),
    },
)


def jsonl(folder, name, rows):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@fuzz.fuzzed(0.07)
@given(st.data(), choices, st.sampled_from(["align", "instruct"]))
def test_no_row_is_lost(folder, layouts, data, choices, stage):
    lists = [data.draw(st.lists(rows, max_size=12)) for rows in (pairs | meanings, tasks, pairs)]
    names = ["pairs.jsonl", "tasks.jsonl", "more.jsonl"]
    parallel, instructions, more = (
        {"path": jsonl(folder, name, rows), "max_rows": data.draw(limits)} for name, rows in zip(names, lists, strict=True)
    )
    own = (
        {"evaluation": jsonl(folder, "held_out.jsonl", sentences)}
        if (sentences := data.draw(st.lists(meanings, max_size=2)))
        else {}
    )
    settings = Settings.model_validate({"data": {"parallel": [parallel, more], "instructions": [instructions], **own, **choices}})
    tokenizer, template = data.draw(st.sampled_from(layouts))
    with suppress(UserError):
        gathered = gather(settings, stage)
        encoder = Encoder(
            tokenizer, template, settings.data.max_length, {code: i for i, code in enumerate(("de", "en", "sw", "zh"))}
        )
        train, dev = (encoder.encode(rows, gathered.dropped, "") for rows in (gathered.train, gathered.dev))
        assert gathered.rows_read + gathered.rows_reversed == len(train) + len(dev) + sum(gathered.dropped.counts.values())
        if stage == "align" and not any("texts" in row for row in lists[0]):
            assert gathered.rows_read == len(lists[0]) + len(lists[2])


@fuzz.fuzzed(0.12)
@given(
    fuzz.texts.map(str.strip), fuzz.texts.map(str.strip), st.integers(0, 5), st.integers(16, 400), st.integers(0, len(WORDINGS))
)
def test_spans_are_the_sentences(layouts, src, tgt, layout, max_length, wording):
    if is_broken(src + tgt) or not src or not tgt:
        return  # no reader lets it through
    tokenizer, template = layouts[layout]
    rendered = template.render_pair(Pair("en", "de", src, tgt), wording)
    assert rendered.text[slice(*rendered.source)] == src
    assert rendered.text[slice(*rendered.target)] == tgt
    (example,) = encode_rows(tokenizer, template, [rendered], max_length)
    if isinstance(example, Dropped):
        assert example.reason in (Reason.TRUNCATED, Reason.UNKNOWN, Reason.SPECIAL)
        return
    (s0, s1), (t0, t1) = example["source"], example["target"]
    assert 0 <= s0 < s1 <= t0 < t1 <= len(example["input_ids"]) <= max_length
    control = ControlTokens(tokenizer)
    assert control.ids.isdisjoint(example["input_ids"][s0:s1])
    assert control.ids.isdisjoint(example["input_ids"][t0:t1])
    if layout < 4 and t1 < len(example["input_ids"]):  # WordPiece does not keep its texts
        for (start, stop), text in (((s0, s1), src), ((t0, t1), tgt)):
            decoded = tokenizer.backend_tokenizer.decode(example["input_ids"][start:stop], skip_special_tokens=False)
            assert bare(decoded) == bare(text)


def bare(text):
    """Without blanks, which a token may take along from beside the sentence; Metaspace writes them as \\u2581."""
    return "".join(text.replace("\\u2581", " ").split())


@fuzz.fuzzed(0.02)
@given(fuzz.texts, fuzz.texts, fuzz.texts, st.integers(0, 5), st.integers(16, 200))
def test_instructions_become_rows_or_reasons(layouts, instruction, given, output, layout, max_length):
    if is_broken(instruction + given + output):
        return
    tokenizer, template = layouts[layout]
    rendered = template.render_instruction(Instruction(instruction, given, output))
    assert rendered.text[slice(*rendered.target)] == output.strip()
    (example,) = encode_rows(tokenizer, template, [rendered], max_length)
    if not isinstance(example, Dropped):
        assert 0 < example["prompt_length"] < len(example["input_ids"]) <= max_length


@fuzz.fuzzed(0.03)
@given(st.lists(fuzz.texts, min_size=1, max_size=4), st.integers(0, 5))
def test_prompts_hold_no_control_token_of_a_text(layouts, texts, layout):
    texts = [text for text in texts if not is_broken(text)]
    tokenizer, template = layouts[layout]
    control = ControlTokens(tokenizer)
    kept = as_text(tokenizer, template, texts)
    assert len(kept) == len(texts)
    for text, encoding in zip(
        kept, encode_core(tokenizer, kept, read_special_tokens=template.special_tokens is not None), strict=True
    ):
        assert control.count(text, encoding) == 0
    prompts = [template.prompt_for_pair("en", "de", text) for text in ["a", *kept]]
    plain, *others = encode_prompts(tokenizer, template, prompts)
    number = [sum(index in control.ids for index in ids) for ids in (plain, *others)]
    assert len({*number}) == 1
    assert all(control.ids.isdisjoint(example["input_ids"][1:]) for example in encode_texts(tokenizer, texts, 1, 50))


parts = st.lists(
    st.sampled_from(
        [
            *[
                "{% for m in messages %}",
                "{% endfor %}",
                "{{ m['content'] }}",
                "{{ m.content | trim }}",
                "{{ m['role'] }}",
                "{{ m }}",
            ],
            *[
                "{% if m['role'] == 'user' %}",
                "{% else %}",
                "{% endif %}",
                "<|im_start|>",
                "<|im_end|>",
                "</s>",
                "\n",
                " ",
                "User: ",
            ],
            *[
                "{{ bos_token }}",
                "{{ eos_token }}",
                "{{ 1 / 0 }}",
                "{{ raise_exception('no') }}",
                "{{ messages[0]['content'] }}",
                "{{ x.y.z }}",
            ],
            *[
                "{% if add_generation_prompt %}",
                "{{ m['content'][::-1] }}",
                "{{ '{' }}",
                "{%",
                "{{ 'a' * 1000 }}",
                "\x00",
                "\ud83d",
            ],
        ]
    ),
    max_size=10,
).map("".join)
whole = st.builds(
    lambda a, b, c: f"{{% for m in messages %}}{a}{{{{ m['content'] }}}}{b}{{% endfor %}}{c}",
    *(st.sampled_from(["", "<s>", "[INST] ", "\n", "</s>", "{{ m['role'] }}: ", "<|im_end|>\n"]),) * 3,
)


@fuzz.fuzzed(0.03)
@given(parts | whole, fuzz.texts, fuzz.texts)
def test_chat_templates_are_read_or_refused(layouts, chat_template, src, tgt):
    tokenizer = layouts[0][0]
    tokenizer.chat_template = chat_template
    try:
        with suppress(UserError):
            template = Template.chat(tokenizer)
            rendered = template.render_pair(Pair("en", "de", src, tgt), 1)
            assert rendered.text[slice(*rendered.source)] == src.strip()
            assert rendered.text[slice(*rendered.target)] == tgt.strip()
            if not is_broken(rendered.text):
                encode_rows(tokenizer, template, [rendered], 200)
    finally:
        tokenizer.chat_template = None
