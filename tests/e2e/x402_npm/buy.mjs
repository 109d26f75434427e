// Buys one job with the published x402 client, which knows nothing of ComputeSwarm.
//
//   node buy.mjs 1|2|x402-fetch URL   with the private key in X402_KEY and the request's JSON on stdin
//
// x402-fetch is the client of version 1 alone, which is no longer developed and still much used.
// Prints one JSON object: status, body, the decoded settlement header, and who has signed the offers
// and the receipt of the extension offer-receipt, by the package's own judgement.

import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { decodePaymentResponseHeader, wrapFetchWithPaymentFromConfig } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { ExactEvmSchemeV1 } from "@x402/evm/exact/v1/client";
import {
  decodeSignedOffers,
  extractOffersFromPaymentRequired,
  extractReceiptFromResponse,
  findAcceptsObjectFromSignedOffer,
  verifyOfferSignatureEIP712,
  verifyReceiptMatchesOffer,
  verifyReceiptSignatureEIP712,
} from "@x402/extensions/offer-receipt";
import { appendPaymentIdentifierToExtensions } from "@x402/extensions/payment-identifier";
import { validateDiscoveryExtension } from "@x402/extensions/bazaar";
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
let required;
const asVersion2 = async (...request) => {
  const response = await fetch(...request);
  if (response.status !== 402) return response;
  required = JSON.parse(Buffer.from(response.headers.get("PAYMENT-REQUIRED"), "base64").toString());
  appendPaymentIdentifierToExtensions(required.extensions); // the client sends it back
  const headers = new Headers(response.headers);
  headers.set("PAYMENT-REQUIRED", Buffer.from(JSON.stringify(required)).toString("base64"));
  return new Response(response.body, { status: 402, headers });
};

async function client() {
  if (version !== "x402-fetch") {
    return wrapFetchWithPaymentFromConfig(version === "1" ? asVersion1 : asVersion2, { schemes: [scheme] });
  }
  const { createSigner, wrapFetchWithPayment } = await import("x402-fetch");
  return wrapFetchWithPayment(fetch, await createSigner("base-sepolia", process.env.X402_KEY));
}

const pay = await client();
const response = await pay(`${seller}/execute`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: readFileSync(0, "utf8"),
});
const header = response.headers.get("PAYMENT-RESPONSE") ?? response.headers.get("X-PAYMENT-RESPONSE");
const receipt = extractReceiptFromResponse(response);
const offers = required ? extractOffersFromPaymentRequired(required) : [];
const decoded = decodeSignedOffers(offers);
console.log(
  JSON.stringify({
    status: response.status,
    body: await response.json(),
    settled: header && decodePaymentResponseHeader(header),
    offers: await Promise.all(
      offers.map(async (offer) => ({
        signer: (await verifyOfferSignatureEIP712(offer)).signer,
        scheme: findAcceptsObjectFromSignedOffer(offer, required.accepts).scheme,
      })),
    ),
    bazaar: required && validateDiscoveryExtension(required.extensions.bazaar),
    receipt: receipt && {
      signer: (await verifyReceiptSignatureEIP712(receipt)).signer,
      matches: decoded.map((offer) => verifyReceiptMatchesOffer(receipt, offer, [account.address])),
    },
  }),
);
