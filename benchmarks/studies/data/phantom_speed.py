"""How fast phantoms are made on one core.

`python -m benchmarks.studies.data.phantom_speed [SIZE ...]`
"""

import sys

import threadpoolctl

from lungseg.data.datasets.phantom import render
from lungseg.timing.statistics import summarise_seconds, time_chain

IMAGES = 60


def main() -> None:
    threadpoolctl.threadpool_limits(1)
    sizes = [int(word) for word in sys.argv[1:]] or [128, 256, 512]
    print("| size | images/s | median ms | IQR ms |\n| --: | --: | --: | --: |")
    for size in sizes:
        numbers = iter(range(2 * IMAGES + 6))
        steps = [("render", lambda _, size=size, numbers=numbers: render(0, next(numbers), size))]
        seconds = time_chain(steps, None, IMAGES, 3, lambda: None)["render"]
        found = summarise_seconds(seconds, 1)
        print(
            f"| {size} | {found['images_per_s']:.1f} | {found['median_ms']:.1f} | {found['iqr_ms']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
