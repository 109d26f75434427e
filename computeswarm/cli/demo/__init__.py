"""The whole of ComputeSwarm on one machine, for trying it out: chain, market, seller and buyer."""
