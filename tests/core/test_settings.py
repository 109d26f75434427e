from __future__ import annotations

from pathlib import Path

import pytest

from computeswarm.core.errors import ConfigError
from computeswarm.core.settings import Paths, Settings


def load(
    tmp_path: Path, toml: str = "", env: dict[str, str] | None = None, **flags: object
) -> Settings:
    environ = {"COMPUTESWARM_HOME": str(tmp_path), **(env or {})}
    (tmp_path / "config.toml").write_text(toml)
    return Settings.load(flags, environ=environ)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    toml, env = 'price = "1.0"', {"COMPUTESWARM_PRICE": "2.0"}
    assert load(tmp_path).price == "0.40"
    assert load(tmp_path, toml).price == "1.0"
    assert load(tmp_path, toml, env).price == "2.0"
    assert load(tmp_path, toml, env, price="3.0").price == "3.0"
    assert load(tmp_path, toml, env, price=None).price == "2.0"


@pytest.mark.parametrize(
    ("toml", "env"),
    [
        ("prise = 1", {}),
        ("price", {}),
        ("slots = 1.5", {}),
        ("slots = true", {}),
        ("price = [1]", {}),
        ("", {"COMPUTESWARM_SLOTS": "many"}),
        ("", {"COMPUTESWARM_SLOTS": "-1"}),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, toml: str, env: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml, env)
    assert (
        "config.toml" in caught.value.detail
        or "slots" in caught.value.detail
        or ("price" in caught.value.detail)
    )


def test_a_file_that_is_not_utf8_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError):
        Settings.load(environ={"COMPUTESWARM_HOME": str(tmp_path)})


def test_one_home_holds_everything(tmp_path: Path) -> None:
    paths = Paths.find({"COMPUTESWARM_HOME": str(tmp_path)})
    for path in (
        paths.config_file,
        paths.wallet,
        paths.buyer,
        paths.seller,
        paths.market,
        paths.cache,
    ):
        assert tmp_path in path.parents
    elsewhere = Paths.find({})
    assert tmp_path not in elsewhere.wallet.parents


def test_every_setting_says_what_it_is() -> None:
    from dataclasses import fields

    assert all(f.metadata.get("help") for f in fields(Settings))
    assert Settings(rpc="http://a, http://b,").rpc_urls == ("http://a", "http://b")
