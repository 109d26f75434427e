// Has the published facilitator verify and settle payments of a payment channel.
//
//   node facilitate.mjs RPC_URL   with its private key in X402_KEY, and on stdin
//                                 {requirements, payloads: [{payload, verify}]}
//
// Prints a JSON list: for each payload the verdict (where it was asked for) and the settlement.

import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { BatchSettlementEvmScheme } from "@x402/evm/batch-settlement/facilitator";
import { createWalletClient, http, publicActions } from "viem";
import { baseSepolia } from "viem/chains";
import { privateKeyToAccount } from "viem/accounts";

globalThis.crypto ??= webcrypto; // not global in Node.js 18, which Debian 12 has

const { requirements, payloads } = JSON.parse(readFileSync(0, "utf8"));
const account = privateKeyToAccount(process.env.X402_KEY);
const client = createWalletClient({
  account,
  chain: baseSepolia,
  transport: http(process.argv[2]),
  pollingInterval: 50,
}).extend(publicActions);
const facilitator = new BatchSettlementEvmScheme(
  toFacilitatorEvmSigner({ ...client, address: account.address }),
);

const told = [];
for (const { payload, verify } of payloads) {
  const payment = { x402Version: 2, payload, accepted: requirements };
  const verdict = verify ? await facilitator.verify(payment, requirements) : null;
  const settled = payload.type === "voucher" ? null : await facilitator.settle(payment, requirements);
  told.push({ verdict, settled });
}
console.log(JSON.stringify(told));
