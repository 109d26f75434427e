"""The language itself: what is read, what is refused, and where an error points."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from query_nodes import node

from computeswarm.core.errors import BadRequest, InvalidQuery
from computeswarm.core.nodes import GPUInfo, Hardware, NodeStatus
from computeswarm.core.query import (
    FIELDS,
    FLAGS,
    MAX_LENGTH,
    SORT_KEYS,
    SORTABLE,
    UNKNOWN_VALUE,
    Facts,
    Kind,
    completions,
    help_text,
    parse,
    plain_words,
    squeeze,
    with_word,
)
from computeswarm.core.query.fields import NAMES

CARD = GPUInfo(
    vendor="nvidia",
    model="NVIDIA GeForce RTX 4090",
    memory_bytes=24_564 * 2**20,
    driver="550.54.14",
    runtime="CUDA 12.4",
    tflops=165,
    capability="8.9",
)


def rig(card: GPUInfo | None = CARD, *, cards: int = 1, **changes: object) -> Facts:
    gpus = (card,) * cards if card else ()
    hardware = Hardware(
        cpu_model="Ryzen", cpu_cores=8, memory_bytes=2**36, disk_bytes=2**38, gpus=gpus
    )
    return node(hardware=hardware, **changes)


@pytest.mark.parametrize(
    "text",
    [
        "tflops>=165 tflops:100..200",
        "driver>=550.54 driver<550.144 driver:550 driver<=550",
        "cuda>=12 cuda:12 cuda:12.4 cuda<=12 cuda<13 cuda:11..12",
        "capability>=8.0 sm:8.9",
        "vendor:nvidia|amd",
        "uptime>=99% uptime:1",
        "value<0.0025 value>=0.0024",
        "vram:24..48 vram:..24 vram:24.. vram:16|24|48 vram:8..12|24..32",
        "mem>=24g memory>=24GiB ram>=64gb ram:0.0625tb",
        "usd<=0.4 price:0.4 price:$0.40 price<=.4usdc",
        "model:4090 available free idle",
        "max_time>=1h max_time>=60m max_time:3600s max_time:0.5h..1h30m",
        "-region:us !gpu:a100 not busy region!=cn status!=offline",
        "not  vram>24",
        'name:"rig" "rtx 4090" gpu:"rtx 4090|x"|"rtx 4090"',
        '4090|a100 and ryzen and "ryzen|4090"|4090',
        "vram >= 24 price< 2 region : eu",
        "isolation:container..gvisor isolation:container|none isolation!=gvisor",
        "network:no internet:false online:yes",
        "offline|idle",
        "tflops>=0.1pflops",
        "VRAM>=24GB Region:EU-FRA STATUS:Idle",
    ],
)
def test_what_finds_it(text: str) -> None:
    query = parse(text)
    for term in query.terms:
        assert term.accepts(rig()), term
    assert query.accepts(rig())
    assert parse(str(query)) == query


@pytest.mark.parametrize(
    "text",
    [
        "tflops>165",
        "driver>550 driver",
        "driver>=550.144",
        "driver<550",
        "cuda>12.4",
        "cuda:12.3",
        "capability>8.9",
        "vendor:amd",
        "uptime<1",
        "value>0.003",
        "vram:25..48",
        "vram:24.5",
        "-gpu:4090",
        "not 4090",
        "!online",
        "not status:idle",
        "network",
        "network:yes",
        "online:no",
        'name:"the rig"',
        '"idle"',
        "isolation:gvisor|macos",
        "max_time>1h",
    ],
)
def test_what_does_not(text: str) -> None:
    query = parse(text)
    assert not query.accepts(rig())
    assert parse(str(query)) == query


@pytest.mark.parametrize("name", ["tflops", "driver", "cuda", "capability", "value"])
def test_what_is_not_known_is_neither_more_nor_less(name: str) -> None:
    plain = rig(GPUInfo(vendor="amd", model="MI", memory_bytes=1, runtime="ROCm 6.2"))
    for text in (f"{name}>=0", f"{name}<1000", f"{name}:0..100000"):
        assert not parse(text).accepts(plain), text
        assert parse(f"-{text}").accepts(plain)
    assert rig(None).value == UNKNOWN_VALUE


def test_value_for_money_puts_the_unknown_last() -> None:
    slow = rig(CARD.model_copy(update={"tflops": 40}), price=100_000, name="slow")
    fast = rig(price=400_000, name="fast")
    unknown = rig(None, price=1, name="unknown")
    order = sorted([unknown, slow, fast], key=parse("sort:value").sort_key)
    assert [found.name for found in order] == ["fast", "slow", "unknown"]


def test_nobody_does_more_than_his_models_data_sheet() -> None:
    def seen(**changes: object) -> int:
        return rig(CARD.model_copy(update=changes)).tflops

    assert seen(tflops=1_000_000) == 165
    assert seen(tflops=80) == 80
    assert seen(tflops=0) == 165  # an older seller's record
    assert seen(tflops=54, model="M2 Ultra") == 54
    assert seen(tflops=0, model="M2 Ultra") == 0


def test_reputation_has_to_be_earned() -> None:
    new, few, many = (rig(succeeded=good, failed=bad) for good, bad in ((0, 0), (2, 0), (300, 3)))
    assert new.reputation < 50 < few.reputation < many.reputation < 990
    assert parse("reputation>=0.95 rep>=95%").accepts(many)
    assert not parse("reputation>=0.95").accepts(few)


@pytest.mark.parametrize(
    ("text", "wrong", "hint"),
    [
        ("gpu:4090 vrma>=24", "vrma", "did you mean vram"),
        ("gpu:4090 srt:value", "srt", "did you mean sort?"),
        ("x relaibility>1", "relaibility", "did you mean rel?"),
        ("gpu:4090 price>=1|2", "|2", "one value; write several as price:1|2"),
        ("vram>=24..48", "24..48", "write vram:24..48"),
        ("vram:48..24", "48..24", "turn it round"),
        ("vram:..", "..", "LEAST"),
        ("vram:24|lots|48", "lots", "number"),
        ("vram:24..lots", "lots", "number"),
        ("max_time>=2x", "2x", "seconds"),
        ("ram>=64%", "64%", "GiB"),
        ("driver>=new", "new", "version"),
        ("driver>=1.2.3.4", "1.2.3.4", "version"),
        ("isolation>=contaner", "contaner", "did you mean container"),
        ("vendor>nvidia", "vendor>nvidia", "vendor:nvidia"),
        ("vendor:nvida", "nvida", "nvidia"),
        ('a name:"my rig', '"my rig', "not closed"),
        ("gpu:4090 or gpu:a100", "or", "gpu:4090|a100"),
        ("vram>=24 not", "not", "nothing after"),
        ("not not busy", "not", "twice"),
        ("not -busy", "-busy", "twice"),
        ("idle|4090", "idle", "quote"),
        ("idle|cpu", "idle", "quote"),
        ("online>3", "online>3", "stands alone"),
        ("network:maybe", "network:maybe", "yes or no"),
        ("-sort:price", "-sort:price", "backwards"),
        ("sort>price", "sort>price", "sort:price"),
        ("sort:", "sort:", "no value"),
        ("sort:-vran", "-vran", "did you mean vram"),
        ("gpu:4090 >=24", ">=24", "KEY"),
        ("gpu:a||b", "a||b", "gpu:4090"),
        ("gpu:!!", "!!", "gpu:4090"),
        ("- x", "-", "KEY"),
    ],
)
def test_an_error_points_and_helps(text: str, wrong: str, hint: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse(text)
    position, length = _place(caught.value)
    assert hint in caught.value.detail
    assert text[position : position + length] == wrong


def _place(error: InvalidQuery) -> tuple[int, int]:
    position, length = error.extra["position"], error.extra["length"]
    assert isinstance(position, int)
    assert isinstance(length, int)
    return position, length


PIECES = [
    *NAMES,
    *FLAGS,
    *(field.example for field in FIELDS.values()),
    *(
        ">=",
        "<=",
        "!=",
        "==",
        ">",
        "<",
        "=",
        ":",
        "|",
        "..",
        "-",
        "!",
        '"',
        " ",
        "  ",
        "not ",
        "and ",
    ),
    *("4090", "0.5", "24gb", "2h", "98%", "$3", "1e9", "550.54", "container", "²", "İ", "ß", "٣"),
    *("sort:", "sort:-", "\ud800", "\x1b", "\u2028", "\u3000"),
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=14).map("".join))
@example("not status:idle|busy|draining|offline")
@example('"not"|"or" -"online"')
def test_any_text_is_read_and_written_or_points_at_a_part_of_itself(text: str) -> None:
    try:
        query = parse(text)
    except InvalidQuery as error:
        position, length = _place(error)
        assert 0 <= position <= position + length <= len(text)
        assert not {"\x1b", "\ud800", "\u2028"} & set(error.detail + str(error.extra["word"]))
        return
    for term in query.terms:
        assert term.length > 0
        assert 0 <= term.position < term.position + term.length <= len(text)
        assert bool(term.ranges) != bool(term.words)
    for found in (rig(), rig(None, status=NodeStatus.OFFLINE)):
        query.accepts(found)
    if len(str(query)) <= MAX_LENGTH:
        assert parse(str(query)) == query


def test_the_table_holds_together() -> None:
    assert len(NAMES) == sum(1 + len(field.aliases) for field in FIELDS.values())
    assert not {"sort", "not", "and", "or"} & {*NAMES, *FLAGS}
    for field in FIELDS.values():
        (term,) = parse(field.example).terms
        assert term.field == field.name
        read = field.texts if field.kind is Kind.TEXT else field.number
        assert read(rig()) is not None
        assert f"  {field.name} " in help_text()
        assert field.name not in SORTABLE or isinstance(SORT_KEYS[field.name](rig()), int | str)
    assert all(len(line) <= 80 for line in help_text().splitlines())


def test_what_is_proposed_can_be_typed() -> None:
    assert completions("-reg", {"region": ["eu"]}) == ["-region:"]
    assert completions("x region:us|", {"region": ["eu", "ap"]}) == ["region:us|eu", "region:us|ap"]
    assert completions("vendor:nvidia|a") == ["vendor:nvidia|amd", "vendor:nvidia|apple"]
    assert completions("gpu:rt", {"gpu": ["RTX 4090"]}) == ["gpu:rtx4090"]
    assert completions('name:"a ') == []
    for word in completions("sort:"):
        parse(word)
    for word in completions("status:"):
        assert parse(word).terms[0].words == ()


def test_one_field_of_a_query_is_replaced() -> None:
    text = 'gpu:4090  -gpu:a100 not region:us "big rig" sort:value'
    assert with_word(text, "gpu:h100") == 'region:us "big rig" sort:value'.join(
        ("not ", " gpu:h100")
    )
    assert with_word(text, "vram>=24") == f"{text} vram>=24"
    assert with_word("idle", "status:busy") == "status:busy"
    assert with_word("", "network") == "network"
    assert with_word("vram>=lots", "gpu:h100") == "gpu:h100"


def test_plain_parameters_are_further_words() -> None:
    given = {"q": "region:eu", "gpu_type": "RTX 4090", "min_vram_gb": "24", "max_price": "$0.5"}
    assert plain_words(given) == "region:eu gpu:rtx4090 vram>=24 price<=0.5"
    assert plain_words({"available": "TRUE"}) == "available"
    assert plain_words({}) == ""
    with pytest.raises(InvalidQuery, match="nothing after"):
        plain_words({"q": "not", "gpu_type": "4090"})
    with pytest.raises(BadRequest, match="min_vram_gb"):
        plain_words({"min_vram_gb": "24 offline"})


def test_an_id_is_found_by_its_beginning_only() -> None:
    found = rig()
    hexes = found.node_id.removeprefix("nd-")
    for text in (
        found.node_id,
        hexes[:4],
        f"nd-{hexes[:3]}",
        f"id:{hexes[:5]}",
        f"id:{found.node_id}",
    ):
        assert parse(text).accepts(found), text
    assert not parse(hexes[2:]).accepts(found)
    assert not parse(f"id:{hexes[2:]}").accepts(found)


@given(st.text(), st.text())
def test_squeezing_twice_changes_nothing(one: str, two: str) -> None:
    assert squeeze(squeeze(one)) == squeeze(one)
    assert squeeze(one + two) == squeeze(one) + squeeze(two) or "Σ" in one + two
