// Sells one answer with the published x402 servers, which know nothing of ComputeSwarm.
//
//   node sell.mjs 1|2 PAY_TO RPC_URL   with the facilitator's private key in X402_KEY
//
// GET /fact and POST /echo cost $0.01. Prints the server's address on a line, and serves until
// stdin ends. The facilitator is the package's own, in this process (2) or beside it (1).

import { webcrypto } from "node:crypto";
import { createServer } from "node:http";
import express from "express";
import { createWalletClient, http, publicActions } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { baseSepolia } from "viem/chains";

globalThis.crypto ??= webcrypto; // not global in Node.js 18, which Debian 12 has

const [version, payTo, rpc] = process.argv.slice(2);
const account = privateKeyToAccount(process.env.X402_KEY);
const wallet = createWalletClient({ account, chain: baseSepolia, transport: http(rpc) }).extend(
  publicActions,
);

const listen = (app) =>
  new Promise((resolve) => {
    const server = createServer(app).listen(0, "127.0.0.1", () =>
      resolve(`http://127.0.0.1:${server.address().port}`),
    );
  });

async function version1() {
  const { settle, verify } = await import("x402/facilitator");
  const { paymentMiddleware } = await import("x402-express");
  const facilitator = express().use(express.json());
  for (const [name, run] of Object.entries({ verify, settle })) {
    facilitator.post(`/${name}`, async (request, response) => {
      const { paymentPayload, paymentRequirements } = request.body;
      response.json(await run(wallet, paymentPayload, paymentRequirements));
    });
  }
  const url = await listen(facilitator);
  const way = { price: "$0.01", network: "base-sepolia", config: { description: "A fact" } };
  return paymentMiddleware(payTo, { "GET /fact": way, "POST /echo": way }, { url });
}

async function version2() {
  const { paymentMiddleware, x402ResourceServer } = await import("@x402/express");
  const { x402Facilitator } = await import("@x402/core/facilitator");
  const { ExactEvmScheme } = await import("@x402/evm/exact/server");
  const { registerExactEvmScheme } = await import("@x402/evm/exact/facilitator");
  const { toFacilitatorEvmSigner } = await import("@x402/evm");
  const { createEIP712OfferReceiptIssuer, createOfferReceiptExtension, declareOfferReceiptExtension } =
    await import("@x402/extensions/offer-receipt");
  const { declarePaymentIdentifierExtension } = await import("@x402/extensions/payment-identifier");
  const facilitator = new x402Facilitator();
  const signer = toFacilitatorEvmSigner({ ...wallet, address: account.address });
  registerExactEvmScheme(facilitator, { signer, networks: "eip155:84532" });
  const client = {
    verify: (...given) => facilitator.verify(...given),
    settle: (...given) => facilitator.settle(...given),
    getSupported: async () => facilitator.getSupported(),
  };
  const server = new x402ResourceServer(client).register("eip155:84532", new ExactEvmScheme());
  const key = privateKeyToAccount(process.env.X402_PAYEE_KEY);
  const issuer = createEIP712OfferReceiptIssuer(`did:pkh:eip155:84532:${key.address}`, (typed) =>
    key.signTypedData(typed),
  );
  server.registerExtension(createOfferReceiptExtension(issuer));
  const way = {
    accepts: { scheme: "exact", price: "$0.01", network: "eip155:84532", payTo },
    description: "A fact",
    extensions: {
      ...declareOfferReceiptExtension({ includeTxHash: true }),
      "payment-identifier": declarePaymentIdentifierExtension(false),
    },
  };
  return paymentMiddleware({ "GET /fact": way, "POST /echo": way }, server);
}

const app = express();
app.use(version === "1" ? await version1() : await version2());
app.get("/fact", (_, response) => response.json({ fact: "paid" }));
app.post("/echo", express.text({ type: "*/*" }), (request, response) => response.send(request.body));
console.log(await listen(app));
process.stdin.on("end", () => process.exit(0)).resume();
