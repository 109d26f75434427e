// Buys two jobs on one payment channel with the published x402 client, then asks for the rest of
// its deposit.
//
//   node channel.mjs SELLER_URL RPC_URL   with the private key in X402_KEY, the requests on stdin
//
// Prints one JSON object: the status, kind of payment and settlement header of each purchase, and
// the answer to the refund.

import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { decodePaymentResponseHeader, wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { toClientEvmSigner } from "@x402/evm";
import { BatchSettlementEvmScheme } from "@x402/evm/batch-settlement/client";
import { createPublicClient, http } from "viem";
import { baseSepolia } from "viem/chains";
import { privateKeyToAccount } from "viem/accounts";

globalThis.crypto ??= webcrypto; // not global in Node.js 18, which Debian 12 has

const [seller, rpc] = process.argv.slice(2);
const requests = JSON.parse(readFileSync(0, "utf8"));
const url = `${seller}/execute`;
const posted = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

// what the client sends, on its way
const kinds = [];
const watched = async (input, init) => {
  const request = new Request(input, init);
  const header = request.headers.get("PAYMENT-SIGNATURE");
  if (header) kinds.push(JSON.parse(Buffer.from(header, "base64").toString()).payload.type);
  return fetch(request);
};

const chain = createPublicClient({ chain: baseSepolia, transport: http(rpc) });
const signer = toClientEvmSigner(privateKeyToAccount(process.env.X402_KEY), chain);
const scheme = new BatchSettlementEvmScheme(signer);
const pay = wrapFetchWithPaymentFromConfig(watched, {
  schemes: [{ network: "eip155:84532", client: scheme }],
});

const bought = [];
for (const body of requests) {
  const response = await pay(url, posted(body));
  const receipt = response.headers.get("PAYMENT-RESPONSE");
  bought.push({
    status: response.status,
    body: await response.json(),
    settled: receipt && decodePaymentResponseHeader(receipt),
  });
}
// nothing is given back while a job still runs on the channel
for (const { body } of bought) {
  const headers = { Authorization: `Bearer ${body.access_key}` };
  const ended = async () => {
    const view = await (await fetch(`${seller}/jobs/${body.job.job_id}`, { headers })).json();
    return ["succeeded", "failed", "out_of_funds"].includes(view.state);
  };
  while (!(await ended())) await new Promise((done) => setTimeout(done, 100));
}
// its refund probes with GET what here is a POST
const refund = await scheme.refund(url, {
  fetch: (input, init) => watched(input, { ...posted(requests[0]), headers: {
    "Content-Type": "application/json", ...Object.fromEntries(new Headers(init?.headers)),
  } }),
});
console.log(JSON.stringify({ bought, kinds, refund }));
