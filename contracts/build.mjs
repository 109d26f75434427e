// Compiles the contracts into the JSON artifacts that Python reads.
//
//   node build.mjs           writes them
//   node build.mjs --check   fails where a committed artifact is not what its source builds to

import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const here = dirname(fileURLToPath(import.meta.url));
const artifacts = {
  TestUSDC: "../computeswarm/chain/artifacts/TestUSDC.json",
  BatchSettlement: "../computeswarm/chain/artifacts/BatchSettlement.json",
  ERC3009DepositCollector: "../computeswarm/chain/artifacts/ERC3009DepositCollector.json",
  Multicall3: "../computeswarm/chain/artifacts/Multicall3.json",
  TestWallet: "../tests/chain/artifacts/TestWallet.json",
  TestHostileToken: "../tests/chain/artifacts/TestHostileToken.json",
};
// A warning, about a guard against re-entrance that clears its slot itself.
const TRANSIENT_STORAGE = "2394";
// Cancun is what both engines of the devnet run; no metadata hash, so that bytes are comparable.
const settings = {
  evmVersion: "cancun",
  optimizer: { enabled: true, runs: 10000 },
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode"] } },
};

function compile(name) {
  const file = `${name}.sol`;
  const read = new Map([[file, readFileSync(join(here, file), "utf8")]]);
  const findImports = (path) => {
    const own = existsSync(join(here, path));
    const contents = readFileSync(join(here, own ? "" : "node_modules", path), "utf8");
    read.set(path, contents);
    return { contents };
  };
  const input = { language: "Solidity", sources: { [file]: { content: read.get(file) } }, settings };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: findImports }));
  const problems = (output.errors ?? [])
    .filter((error) => error.errorCode !== TRANSIENT_STORAGE)
    .map((error) => error.formattedMessage);
  if (problems.length) throw new Error(problems.join("\n"));
  const { abi, evm } = output.contracts[file][name];
  const hash = createHash("sha256");
  for (const path of [...read.keys()].sort()) hash.update(`${path}\0${read.get(path)}\0`);
  return {
    contract: name,
    compiler: solc.version(),
    evmVersion: settings.evmVersion,
    sourceSha256: hash.digest("hex"),
    abi,
    bytecode: `0x${evm.bytecode.object}`,
    // immutables are zero here: to place the contract, run `bytecode` and take what it returns
    deployedBytecode: `0x${evm.deployedBytecode.object}`,
    immutableReferences: evm.deployedBytecode.immutableReferences,
  };
}

const check = process.argv.includes("--check");
for (const [name, path] of Object.entries(artifacts)) {
  const target = join(here, path);
  const built = JSON.stringify(compile(name), null, 1) + "\n";
  if (!check) {
    writeFileSync(target, built);
  } else if (readFileSync(target, "utf8") !== built) {
    console.error(`${relative(here, target)} is not what ${name}.sol builds to; run: node build.mjs`);
    process.exitCode = 1;
  }
}
