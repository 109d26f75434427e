// Lists what a market offers with the published discovery client.
//
//   node find.mjs MARKET_URL    (stdin is not read)

import { HTTPFacilitatorClient } from "@x402/core/server";
import { withBazaar } from "@x402/extensions/bazaar";

const client = withBazaar(new HTTPFacilitatorClient({ url: process.argv[2] }));
const listed = await client.extensions.bazaar.listResources({ type: "http", limit: 5 });
console.log(JSON.stringify(listed));
