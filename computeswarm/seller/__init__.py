"""The seller: detects GPUs, runs paid jobs in a sandbox and reports to the market."""
