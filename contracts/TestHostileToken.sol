// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDepositCollector} from "./BatchSettlement.sol";

/// A token, and a collector of deposits in it, that do what they shouldn't: whenever tokens move, a
/// call of the attacker's choice is made in between; and the collector brings whatever it was told
/// to bring, instead of what was asked for. For tests only.
contract TestHostileToken is IDepositCollector {
    mapping(address account => uint256) public balanceOf;
    address private _target;
    bytes private _call;

    event Attacked(bool succeeded, bytes returned);

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    /// From the next transfer on, `data` is sent to `target` before the tokens move.
    function arm(address target, bytes calldata data) external {
        _target = target;
        _call = data;
    }

    function transfer(address to, uint256 amount) external returns (bool) {
        _attack();
        balanceOf[msg.sender] -= amount;
        balanceOf[to] += amount;
        return true;
    }

    function collect(address, address, uint128, bytes32, bytes calldata collectorData) external {
        _attack();
        balanceOf[msg.sender] += abi.decode(collectorData, (uint256));
    }

    function _attack() private {
        if (_target == address(0)) return;
        (bool succeeded, bytes memory returned) = _target.call(_call);
        emit Attacked(succeeded, returned);
    }
}
