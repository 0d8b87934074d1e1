"""The words of the page: complete in both languages, without typed numbers, escaped whatever they are filled with."""

import ast
import fnmatch
import re

import pytest
from markupsafe import Markup

from kvlab.catalogue import names, unit_of
from kvlab.paths import PACKAGE, REPORT
from kvlab.publish.check import claims
from kvlab.publish.words.bilingual import filled
from kvlab.publish.words.strings import LANGUAGES, has, look_up, rich, said, words
from kvlab.quantities import UNITS, Message, Metrics, Quantity

HOLE = re.compile(r"\{(\w+)\}")
PLURALS = {"one", "other"}
# Names, not quantities: a conference and its year, a paper's number, a digest, a statistic.
NAMED = re.compile(
    r"SOSP 2023|abs/2309\.06180|SHA-256|9[59]th percentile|第 9[59] 百分位|\bp95|1×|1 倍|Pow2|Fig\. \d+|图 \d+"
    r"|sosp-ae-39"
)


def leaves(tree, at=""):
    for key, value in tree.items():
        if isinstance(value, dict) and set(value) <= PLURALS:
            yield at + key, " ".join(value.values())
        elif isinstance(value, dict):
            yield from leaves(value, f"{at}{key}.")
        else:
            yield at + key, value


@pytest.fixture(scope="module")
def texts():
    return {x: {k: v for k, v in leaves(words(x)) if not k.startswith("said.")} for x in LANGUAGES}


def test_both_languages_say_everything(texts):
    assert texts["en"].keys() == texts["zh"].keys()
    for language in LANGUAGES:
        assert [key for key, text in texts[language].items() if not isinstance(text, str) or not text.strip()] == []


def test_both_languages_have_the_same_holes(texts):
    for key, english in texts["en"].items():
        assert set(HOLE.findall(english)) == set(HOLE.findall(texts["zh"][key])), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_number_is_typed(texts, language):
    typed = {key: text for key, text in texts[language].items() if re.search(r"\d", NAMED.sub("", text))}
    assert typed == {}


def test_a_message_has_the_same_holes_in_both_languages():
    english, chinese = words("en")["said"], words("zh")["said"]
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert set(HOLE.findall(text)) == set(HOLE.findall(chinese[key])), key


def keys_of(node):
    """The keys that an expression may be, with `*` for what is filled in; none where it is a name."""
    if isinstance(node, ast.Constant):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return keys_of(node.body) + keys_of(node.orelse)
    if isinstance(node, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "*" for part in node.values)]
    return []


def test_every_message_that_the_code_makes_has_words_and_every_word_is_of_one():
    """A key is written where the message is made, or is a text of the code that ends up there."""
    keys, patterns, texts = set(words("en")["said"]), set(), set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Message" and node.args:
                patterns |= set(keys_of(node.args[0]))
    assert [pattern for pattern in sorted(patterns) if not fnmatch.filter(keys, pattern)] == []
    unused = [key for key in keys if key not in texts and not any(fnmatch.fnmatchcase(key, one) for one in patterns)]
    assert sorted(unused) == []


def test_every_verdict_of_a_claim_has_words():
    for verdict in (claims.HELD, claims.FAILED, claims.NOT_HERE, claims.UNDECIDED):
        assert has(f"first.claims.{verdict.replace(' ', '_')}"), verdict


def test_every_unit_has_words():
    for unit in set(UNITS) - {"share", "change"}:
        assert has(f"units.{unit}"), unit


def test_templates_hold_no_text():
    for template in sorted((REPORT / "templates").glob("*.j2")):
        text = re.sub(
            r"{#.*?#}|{%.*?%}|{{.*?}}|<(style|script)[^>]*>.*?</\1>", " ", template.read_text(), flags=re.DOTALL
        )
        text = re.sub(r"<[^>]*>|&\w+;", " ", text)
        left = [word for word in re.findall(r"[^\W_]{2,}", text) if word not in {"kvlab"}]
        assert left == [], template.name


def test_every_key_that_a_template_names_exists():
    for template in sorted((REPORT / "templates").glob("*.j2")):
        for key in re.findall(r"""\bt\("([\w.-]+)"(?=[,)])""", template.read_text()):
            assert has(key), f"{template.name}: {key}"


def test_what_the_metrics_say_can_be_said_in_both_languages(tmp_path):
    from tests.fixtures import small_run

    metrics = Metrics.read(small_run.build(tmp_path / "small", figures=False) / "metrics.json")
    recorded = [q.formula for q in metrics.quantities] + [q.why_none for q in metrics.quantities if q.why_none]
    recorded += [guard["detail"] for guard in metrics.guards] + [entry["reason"] for entry in metrics.runs]
    assert {type(message) for message in recorded} <= {Message, str}
    for message in recorded:
        assert said("en", message)
        assert isinstance(message, str) or re.search(r"[\u4e00-\u9fff]", said("zh", message)), message
    assert [q.id for q in metrics.quantities if unit_of(q.id) != q.unit] == []


def test_every_declared_quantity_has_a_name_in_both_languages(texts):
    for language in LANGUAGES:
        assert [name for name in names() if f"names.{name}" not in texts[language]] == []


def test_no_word_is_kept_of_a_quantity_that_nothing_declares(texts):
    left = {key for key in texts["en"] if key.startswith("names.")} - {f"names.{name}" for name in names()}
    assert left == set()


def test_a_message_is_put_into_words_with_the_messages_within_it():
    message = Message("median-of", {"what": Message("median-over-requests", {"what": Message("latency")}), "n": 3})
    assert said("zh", message) == "各请求的中位数：从请求到达到其最后一个 token 的秒数；3 次重复的中位数"
    assert said("en", message).startswith("median over requests of: seconds from a request's arrival")
    assert said("zh", "an engine's own error") == "an engine's own error"
    assert said("zh", Message("expected.above", {"x": {"en": "1.00×", "zh": "1.00 倍"}})) == "> 1.00 倍"
    with pytest.raises(KeyError, match=r"never-heard-of"):
        said("en", Message("never-heard-of"))


def test_marks_become_html_and_nothing_else_does():
    filled = rich("*a* **b** `c` [d](https://e.org) {f} <g>", {"f": "<script>"})
    assert filled == Markup(
        '<em>a</em> <strong>b</strong> <code>c</code> <a href="https://e.org">d</a> &lt;script&gt; &lt;g&gt;'
    )
    assert "href" not in rich("[x](javascript:alert(1))") + rich("[x](http://e.org)")
    assert rich("`a*b*c` \\*") == Markup("<code>a*b*c</code> \\*")  # what is marked as code is taken as it is
    with pytest.raises(KeyError, match="nothing given"):
        rich("{missing}", {})


def test_a_missing_key_is_named():
    with pytest.raises(KeyError, match=r"strings\.en\.yaml has no no\.such\.key"):
        look_up("en", "no.such.key")


def test_punctuation_stays_with_the_number_before_it():
    one = Quantity("w.gain", 1.2, "ratio", "f", 1, [])
    said = filled(
        lambda language: "x {gain}。y {name}." if language == "zh" else "x {gain}. {gain} y", gain=one, name="n"
    )
    button = '<button type="button" class="q" data-q="w.gain">'
    assert said["en"] == f'x <span class="word">{button}1.20×</button>.</span> {button}1.20×</button> y'
    assert f'<span class="word">{button}' in said["zh"]
    assert "</button>。</span>y n." in said["zh"]
