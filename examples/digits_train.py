"""Train a small network on handwritten digits, with PyTorch; on a GPU where there is one.

    computeswarm run examples/digits_train.py --image python-ml --input examples/data/digits.csv

Run it from the folder that holds examples/: a job sees its inputs under the same paths. Another CSV
is named after --. It has a head line, 64 pixel columns (0 to 16) and the digit. The environment
variable EPOCHS is the number of passes (30 unless given). Written to outputs/: model.pt (the
checkpoint) and learning_curve.csv. The last line is the accuracy on the 360 images held back.
Deterministic on one kind of processor.
"""

import csv
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

HELD_BACK = 360
BATCH = 64


def load(path):
    """Images scaled to 0…1 as N×1×8×8, and their digits, in an order shuffled once and for all."""
    data = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32)
    data = data[np.random.default_rng(7).permutation(len(data))]
    images = torch.from_numpy(data[:, :-1] / 16.0).reshape(-1, 1, 8, 8)
    return images, torch.from_numpy(data[:, -1].astype(np.int64))


def network():
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def evaluate(model, images, digits):
    with torch.no_grad():
        scores = model(images)
        loss = nn.functional.cross_entropy(scores, digits).item()
        return loss, (scores.argmax(dim=1) == digits).float().mean().item()


def main():
    epochs = int(os.environ.get("EPOCHS", "30"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(7)
    torch.use_deterministic_algorithms(device == "cpu")
    print(f"torch {torch.__version__} on {device}", flush=True)

    source = sys.argv[1] if len(sys.argv) > 1 else "examples/data/digits.csv"
    images, digits = (part.to(device) for part in load(source))
    train_x, train_y = images[HELD_BACK:], digits[HELD_BACK:]
    test_x, test_y = images[:HELD_BACK], digits[:HELD_BACK]
    model = network().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    order = torch.Generator().manual_seed(7)

    out = Path(os.environ.get("COMPUTESWARM_OUTPUTS", "outputs"))
    out.mkdir(exist_ok=True)
    with open(out / "learning_curve.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "train_loss", "test_loss", "test_accuracy"])
        for epoch in range(1, epochs + 1):
            total = 0.0
            for rows in torch.randperm(len(train_x), generator=order).split(BATCH):
                rows = rows.to(device)
                loss = nn.functional.cross_entropy(model(train_x[rows]), train_y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(rows)
            test_loss, accuracy = evaluate(model, test_x, test_y)
            train_loss = total / len(train_x)
            writer.writerow([epoch, f"{train_loss:.5f}", f"{test_loss:.5f}", f"{accuracy:.4f}"])
            print(
                f"epoch {epoch:2}/{epochs}  loss {train_loss:.4f}  test {accuracy:.2%}", flush=True
            )

    torch.save({"model": model.state_dict(), "epochs": epochs}, out / "model.pt")
    print(f"accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
