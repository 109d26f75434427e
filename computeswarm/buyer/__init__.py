"""The buyer: finding a node, buying time on it, following the job, fetching what it wrote."""
