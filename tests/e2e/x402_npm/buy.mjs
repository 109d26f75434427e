// Buys one job with the published x402 client, which knows nothing of ComputeSwarm.
//
//   node buy.mjs 1|2 SELLER_URL   with the private key in X402_KEY and the request's JSON on stdin
//
// Prints one JSON object: status, body and the decoded settlement header.

import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { decodePaymentResponseHeader, wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { ExactEvmSchemeV1 } from "@x402/evm/exact/v1/client";
import { privateKeyToAccount } from "viem/accounts";

globalThis.crypto ??= webcrypto; // not global in Node.js 18, which Debian 12 has

const [version, seller] = process.argv.slice(2);
const account = privateKeyToAccount(process.env.X402_KEY);
const scheme =
  version === "1"
    ? { x402Version: 1, network: "base-sepolia", client: new ExactEvmSchemeV1(account) }
    : { network: "eip155:84532", client: new ExactEvmScheme(account) };

// a client of version 1 looks at the body only, where today's client would take the header
const asVersion1 = async (...request) => {
  const response = await fetch(...request);
  const headers = new Headers(response.headers);
  headers.delete("PAYMENT-REQUIRED");
  return new Response(response.body, { status: response.status, headers });
};
const pay = wrapFetchWithPaymentFromConfig(version === "1" ? asVersion1 : fetch, { schemes: [scheme] });
const response = await pay(`${seller}/execute`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: readFileSync(0, "utf8"),
});
const receipt = response.headers.get("PAYMENT-RESPONSE") ?? response.headers.get("X-PAYMENT-RESPONSE");
console.log(
  JSON.stringify({
    status: response.status,
    body: await response.json(),
    settled: receipt && decodePaymentResponseHeader(receipt),
  }),
);
