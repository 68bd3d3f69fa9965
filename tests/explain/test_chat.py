"""A chat is explained as the text that the tokenizer's chat template makes of it."""

import copy
import functools

import checkpoints
import numpy as np
import pytest
import tiny_models
import tokenizers

import jaxflow as jf
from jaxflow.explain._chat import ChatTokenizer, is_chat

pytestmark = pytest.mark.usefixtures("standard_promotion")  # models of transformers run here

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' and not loop.first %}"
    "{{ raise_exception('a system message comes first') }}{% endif %}"
    "{{ message.role[:1] }}.{{ message.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}a.{% endif %}"
)
CHAT = [{"role": "system", "content": "old"}, {"role": "user", "content": "the keys"}]
TEXT = "<s>s.old</s>u.the keys</s>a."


@functools.cache
def loaded():
    """A decoder with a tokenizer that puts <s> before each text, as those of Llama 3 do."""
    tokenizer = checkpoints.byte_pairs()
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.chat_template = TEMPLATE
    return tiny_models.build("GPT2", "LMHeadModel"), tokenizer


def explained(inputs, method="flow", **options):
    model, tokenizer = loaded()
    return jf.explain(model, inputs, method, tokenizer=tokenizer, **options)


def ids_of(text):
    return np.array([loaded()[1](text, add_special_tokens=False)["input_ids"]])


def test_a_chat_is_its_text_without_a_second_start():
    found = explained(CHAT)
    expected = jf.explain(loaded()[0], {"input_ids": ids_of(TEXT)}, "flow")
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.tokens[:4] == ("<s>", "s", ".", "ol")
    assert found.tokens.count("<s>") == 1


def test_a_chat_that_ends_with_an_answer_asks_for_none():
    answered = [*CHAT, {"role": "assistant", "content": "a key"}]
    expected = jf.explain(loaded()[0], {"input_ids": ids_of(TEXT + "a key</s>")}, "flow")
    np.testing.assert_array_equal(explained(answered).scores, expected.scores)


def test_a_model_answers_a_chat():
    written = explained(CHAT, generate=jf.Generate(max_new_tokens=3))
    n_prompt = ids_of(TEXT).shape[1]
    assert written.attribution.positions.tolist() == [n_prompt - 1, n_prompt, n_prompt + 1]
    given = explained(CHAT, generate=jf.Generate(continuation="key"))
    assert given.decoder_tokens[-1] == "key"
    assert len(given.decoder_tokens) == n_prompt + 1


def test_turns_are_inputs_by_the_name_of_their_role():
    chat = [CHAT[0], CHAT[1], {"role": "assistant", "content": "a key"}, {"role": "user", "content": "the keys"}]
    found = explained(chat, spans="turns", positions=-1)
    assert found.decoder_tokens == (
        "<s>s.", "system", "</s>u.", "user", "</s>a.", "assistant", "</s>u.", "user 2", "</s>a.",
    )  # fmt: skip
    lengths = [len(ids_of(text)[0]) for text in ("<s>s.", "<s>s.old", "<s>s.old</s>u.", "<s>s.old</s>u.the keys")]
    ids = ids_of("<s>s.old</s>u.the keys</s>a.a key</s>u.the keys</s>a.")
    spans = [(0, lengths[0]), (lengths[0], lengths[1], "system"), (lengths[2], lengths[3], "user")]
    expected = jf.explain(loaded()[0], {"input_ids": ids}, "flow", spans=spans, positions=-1)
    by_name = dict(zip(expected.decoder_tokens, expected.scores[0], strict=True))
    np.testing.assert_allclose(found.scores[0, [1, 3]], [by_name["system"], by_name["user"]], atol=1e-6)
    np.testing.assert_allclose(found.scores[0, 0], expected.scores[0, 0], atol=1e-6)


def test_contributions_of_turns_add_up():
    tokens, turns = (explained(CHAT, "contributions", positions=-1, spans=spans) for spans in (None, "turns"))
    assert turns.scores.sum() == pytest.approx(tokens.scores.sum(), abs=1e-4)
    assert len(turns.decoder_tokens) == 5


def test_several_chats_and_texts_at_once():
    found = explained([CHAT, "the keys", [CHAT[1]]])
    for each, alone in zip(found, (CHAT, "the keys", [CHAT[1]]), strict=True):
        np.testing.assert_allclose(each.scores, explained(alone).scores, atol=1e-6)


def test_contents_in_parts():
    parts = [CHAT[0], {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "keys"}]}]
    np.testing.assert_array_equal(explained(parts).scores, explained(CHAT).scores)


@pytest.mark.parametrize(
    ("chat", "options", "message"),
    [
        ([{"role": "user", "content": [{"type": "image"}]}], {}, r"content of message 0 \(user\) is .*expected a text"),
        ([CHAT[1], CHAT[0]], {}, "refuses these messages: a system message comes first"),
        ([{"role": "user", "content": " "}], {"spans": "turns"}, r"Message 0 \(user\) is not in the text as it is"),
        ("the keys", {"spans": "turns"}, "spans='turns' are of a chat"),
    ],
)
def test_bad_chats(chat, options, message):
    with pytest.raises(ValueError, match=message):
        explained(chat, **options)


def test_a_tokenizer_without_template():
    model, _ = loaded()
    with pytest.raises(
        ValueError, match="A chat of 2 messages is given, and a PreTrainedTokenizerFast without chat template"
    ):
        jf.explain(model, CHAT, "flow", tokenizer=checkpoints.byte_pairs())
    with pytest.raises(ValueError, match="A chat of 2 messages is given, and no tokenizer"):
        jf.explain(model, CHAT, "flow")


def test_what_is_a_chat():
    assert is_chat(CHAT)
    assert not any(map(is_chat, ([], ["a"], [{"input_ids": 1}], CHAT[0], [*CHAT, "a"])))
    assert copy.deepcopy(ChatTokenizer(loaded()[1])).model_max_length == loaded()[1].model_max_length
