// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// The part of the well-known Multicall3's interface that settling in batches and x402's own
/// programs use, for local chains, which don't come with it.
contract Multicall3 {
    struct Call {
        address target;
        bytes callData;
    }

    struct Call3 {
        address target;
        bool allowFailure;
        bytes callData;
    }

    struct Result {
        bool success;
        bytes returnData;
    }

    /// Every call in its turn; one that may not fail takes all of them back.
    function aggregate3(Call3[] calldata calls) external payable returns (Result[] memory results) {
        results = new Result[](calls.length);
        for (uint256 i = 0; i < calls.length; ++i) {
            results[i] = _run(calls[i].target, calls[i].callData, calls[i].allowFailure);
        }
    }

    function tryAggregate(
        bool requireSuccess,
        Call[] calldata calls
    ) external payable returns (Result[] memory results) {
        results = new Result[](calls.length);
        for (uint256 i = 0; i < calls.length; ++i) {
            results[i] = _run(calls[i].target, calls[i].callData, !requireSuccess);
        }
    }

    function _run(address target, bytes calldata data, bool mayFail) private returns (Result memory result) {
        (result.success, result.returnData) = target.call(data);
        require(result.success || mayFail, "Multicall3: call failed");
    }
}
