"""Principal components of handwritten digits, with NumPy: a file in, files out.

    computeswarm run examples/digits_pca.py --image python-ml --input examples/data/digits.csv

Run it from the folder that holds examples/: a job sees its inputs under the same paths. Another CSV
is named after --. It has a head line, 64 pixel columns and the digit. The environment variable
COMPONENTS is how many components are kept (16 unless given). Written to outputs/:
components.npy (COMPONENTS × 64), mean_images.npy (10 × 64), explained.csv.
"""

import csv
import os
import sys
from pathlib import Path

import numpy as np


def main():
    keep = int(os.environ.get("COMPONENTS", "16"))
    source = sys.argv[1] if len(sys.argv) > 1 else "examples/data/digits.csv"
    data = np.loadtxt(source, delimiter=",", skiprows=1)
    pixels, digits = data[:, :-1], data[:, -1].astype(int)
    print(f"{len(pixels)} images of {pixels.shape[1]} pixels", flush=True)

    centred = pixels - pixels.mean(axis=0)
    _, singular, components = np.linalg.svd(centred, full_matrices=False)
    share = singular**2 / np.sum(singular**2)
    # a component's sign is arbitrary: make the largest entry positive
    signs = np.sign(components[np.arange(len(components)), np.abs(components).argmax(axis=1)])
    components = components * signs[:, None]
    means = np.stack([pixels[digits == digit].mean(axis=0) for digit in range(10)])

    out = Path(os.environ.get("COMPUTESWARM_OUTPUTS", "outputs"))
    out.mkdir(exist_ok=True)
    np.save(out / "components.npy", components[:keep])
    np.save(out / "mean_images.npy", means)
    with open(out / "explained.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["component", "share", "together"])
        together = 0.0
        for number, one in enumerate(share[:keep], 1):
            together += one
            writer.writerow([number, f"{one:.6f}", f"{together:.6f}"])
            print(f"component {number:2}: {one:6.1%}  together {together:6.1%}", flush=True)
    print(f"{keep} components explain {share[:keep].sum():.1%}")


if __name__ == "__main__":
    main()
