from __future__ import annotations

from pathlib import Path

import pytest

from computeswarm.core.chains import BASE, BASE_SEPOLIA, DEVNET
from computeswarm.core.errors import ConfigError, ExitCode, RealMoneyRefused
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


def test_a_service_keeps_its_settings_elsewhere(tmp_path: Path) -> None:
    environ = {"COMPUTESWARM_HOME": "/var/x", "COMPUTESWARM_CONFIG_HOME": str(tmp_path)}
    paths = Paths.find(environ)
    assert paths.config_file == tmp_path / "config.toml"
    assert paths.seller == Path("/var/x/seller")


def test_every_setting_says_what_it_is() -> None:
    from dataclasses import fields

    assert all(f.metadata.get("help") for f in fields(Settings))
    assert Settings(rpc="http://a, http://b,").rpc_urls == ("http://a", "http://b")


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("base-sepolia", BASE_SEPOLIA),
        ("84532", BASE_SEPOLIA),
        (" Base ", BASE),
        ("8453", BASE),
        ("devnet", DEVNET),
    ],
)
def test_a_network_is_set_by_name_or_by_id(tmp_path: Path, text: str, chain: object) -> None:
    assert load(tmp_path, f"network = {text!r}").chain == chain
    found = load(tmp_path, env={"COMPUTESWARM_NETWORK": text})
    assert (found.chain, found.chain_id) == (chain, found.chain.chain_id)
    assert load(tmp_path).chain == BASE_SEPOLIA


@pytest.mark.parametrize("text", ["sepolia", "1", "", "0x2105", "٨٤٥٣", "9" * 5000])
def test_another_network_is_refused_with_what_to_write(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"set network to base-sepolia, base or devnet"):
        load(tmp_path, network=text)


def test_the_old_name_and_a_slip_are_told_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'write network = "base-sepolia"'):
        load(tmp_path, "chain_id = 84532")
    with pytest.raises(ConfigError, match=r"chain_id.*network"):
        load(tmp_path, env={"COMPUTESWARM_CHAIN_ID": "8453"})
    with pytest.raises(ConfigError, match=r"did you mean 'network'"):
        load(tmp_path, "netwrok = 'base'")


def test_rpc_addresses_are_checked_and_their_keys_are_never_repeated(tmp_path: Path) -> None:
    both = load(tmp_path, 'rpc = ["https://a.test/v2/key", "http://[::1]:8545"]')
    assert both.rpc_urls == ("https://a.test/v2/key", "http://[::1]:8545")
    for wrong in (
        "wss://rpc.test/s3cret",
        "https://me:s3cret@rpc.test",
        "s3cret",
        "http:///s3cret",
    ):
        with pytest.raises(ConfigError, match=r"rpc \(entry 2\) is no address") as caught:
            load(tmp_path, rpc=f"http://a.test,{wrong}")
        assert "s3cret" not in caught.value.detail
        for name in ("rpc_confirm", "facilitator"):
            with pytest.raises(ConfigError, match=f"{name} is no address") as caught:
                load(tmp_path, **{name: wrong})
            assert "s3cret" not in caught.value.detail
    assert load(tmp_path, network="devnet").rpc_urls == ("http://127.0.0.1:8545",)
    assert load(tmp_path).rpc_urls == ()


def test_allow_lists_hold_what_can_be_matched(tmp_path: Path) -> None:
    payee = BASE.usdc.address
    found = load(tmp_path, f'allow_payees = ["{payee}"]\nallow_hosts = "a.test, *.b.test,::1"')
    assert found.payees == (payee,)
    assert found.hosts == ("a.test", "*.b.test", "::1")
    for name, wrong in (
        ("allow_payees", "0x12"),
        ("allow_hosts", "http://a.test"),
        ("allow_hosts", "a.test:8402"),
        ("allow_hosts", "*"),
        ("allow_hosts", "a.*.test"),
    ):
        with pytest.raises(ConfigError, match=name):
            load(tmp_path, **{name: wrong})


def test_real_money_has_to_be_allowed(tmp_path: Path) -> None:
    assert load(tmp_path).spending_chain() == BASE_SEPOLIA
    with pytest.raises(RealMoneyRefused, match="--real-money") as caught:
        load(tmp_path, network="base").spending_chain()
    assert caught.value.exit_code == ExitCode.REFUSED
    for given in ("true", "1", "yes"):
        env = {"COMPUTESWARM_ALLOW_REAL_MONEY": given}
        assert load(tmp_path, 'network = "base"', env).spending_chain() == BASE
    assert load(tmp_path, 'network = "base"\nallow_real_money = true').spending_chain() == BASE
    with pytest.raises(RealMoneyRefused):
        load(tmp_path, 'network = "base"\nallow_real_money = false').spending_chain()
    with pytest.raises(ConfigError, match="true or false"):
        load(tmp_path, allow_real_money="perhaps")


def test_the_database_with_its_password_stands_in_no_print_of_the_settings(tmp_path: Path) -> None:
    url = "postgresql://market:pa55w0rd@db/market"
    settings = load(tmp_path, env={"COMPUTESWARM_DATABASE": url})
    assert settings.database == url
    assert "pa55w0rd" not in repr(settings)


def test_a_market_knows_its_own_addresses_however_they_are_spelled(tmp_path: Path) -> None:
    several = load(tmp_path, 'public_urls = ["https://Market.test:443/", "http://10.0.0.7:8402"]')
    assert several.server_names == {"https://market.test", "http://10.0.0.7:8402"}
    assert load(tmp_path).server_names == frozenset()
    for name in ("public_urls", "market"):
        with pytest.raises(ConfigError, match=f"The setting {name}: a server's address is http"):
            load(tmp_path, **{name: "market.test"})
