"""What each table of a results directory has a row for, and what each of its columns is.

docs/results.md and datapackage.json are made from these texts. A column has a unit ("" if there is none), a
meaning, and when a cell is empty ("" if none is).
"""

from __future__ import annotations

Column = tuple[str, str, str]

SHARE = "0 to 1"
NO_LUNG = "The true mask has no such lung."
NOT_TIMED = "The approach was not timed."
NOT_AT_ONE = "The approach was not timed at batch size 1."
NOT_WHOLE = 'The stage is not "whole".'
NOT_ALONE = f"{NOT_WHOLE} Or a stage runs on the host."
ON_CPU = "The device is a CPU."
NO_NVML_HERE = f"{ON_CPU} Or NVML doesn't tell, as of the memory in most containers."
NO_NVML = f"{NOT_WHOLE} {NO_NVML_HERE}"
NO_COUNTER = "Or the device shows no counter."
OLDER = "An older version wrote the table."
NOT_SAID = f"The approach doesn't say. Or {OLDER[0].lower()}{OLDER[1:]}"
OF_DISTANCE = "as in `distance_unit`"
NO_DISTANCES = "Some images have distances in px, others in mm."

ROWS = {
    "scores": "A row for each image, approach, fold and seed.",
    "history": "A row for each step of a training.",
    "training": "A row for each training.",
    "timings": "A row for each approach, stage, runtime and batch size.",
    "timing_pairs": "A row for each two approaches: the ratio of their times at batch size 1.",
    "calibration": "A row for each training and bin of predicted probabilities.",
    "importance": "A row for each input of a regressor: how much it is used.",
    "statistics": "A row for each mean, interval, difference and test over patients.",
    "summary": "The main table: a row for each approach and each device that it was timed on.",
}

APPROACH: Column = ("", "Name of the row in the spec.", "")
DATASET: Column = ("", "Name of the dataset that is scored.", "")
FOLD: Column = ("", "Number of the fold, from 0. A rule that makes one split has fold 0.", "")
SEED: Column = ("", "Seed of the training.", "")
OF_TRIAL = {"approach": APPROACH, "fold": FOLD, "seed": SEED}
SETTING: dict[str, Column] = {
    "device": ("", '"cpu" or "cuda".', ""),
    "precision": ("", 'Number format: "float32" or "bfloat16".', ""),
    "layout": ("", 'Memory layout: "contiguous" or "channels-last".', ""),
    "compiled": ("", "True with `torch.compile`.", ""),
}
IMAGE_SIZE: dict[str, Column] = {
    "height": ("pixels", "Height of the timed images.", ""),
    "width": ("pixels", "Width of the timed images.", ""),
    "batch_size": ("images", "Images a call.", ""),
}

SCORES: dict[str, Column] = {
    "approach": APPROACH,
    "dataset": DATASET,
    "train_set": ("", "Name of the dataset that the training images are from.", ""),
    "n_train": ("images", "Number of training images.", ""),
    "fold": FOLD,
    "seed": SEED,
    "image_id": ("", "Name of the image.", ""),
    "patient": ("", "Name of the patient.", ""),
    "source": ("", "Hospital or collection of the image.", ""),
    "threshold": (SHARE, "Pixels of the probability map at or above it are lung.", ""),
    "tp": ("pixels", "True positives: lung that is predicted as lung.", ""),
    "fp": ("pixels", "False positives: no lung, but predicted as lung.", ""),
    "fn": ("pixels", "False negatives: lung that is missed.", ""),
    "tn": ("pixels", "True negatives: no lung, and predicted so.", ""),
    "dice": (SHARE, "Dice: 2 tp / (2 tp + fp + fn). If both masks are empty it is 1.", ""),
    "iou": (SHARE, "Intersection over union, or Jaccard index.", ""),
    "accuracy": (SHARE, "Share of all pixels that are right.", ""),
    "precision": (SHARE, "Share of the predicted lung that is lung.", ""),
    "recall": (SHARE, "Share of the lung that is found.", ""),
    "specificity": (SHARE, "Share of the other pixels that are not predicted as lung.", ""),
    "dice_left": (SHARE, "Dice of the patient's left lung, which is on the right of the image.", NO_LUNG),
    "dice_right": (SHARE, "Dice of the patient's right lung.", NO_LUNG),
    "area_error": ("", "Difference of predicted and true area, without sign, divided by the true area.", ""),
    "distance_unit": ("", '"px", or "mm" if the pixel spacing is known.', ""),
    "hausdorff": (OF_DISTANCE, "Hausdorff distance: the largest distance of the two boundaries.", ""),
    "hd95": (OF_DISTANCE, "95th percentile of these distances, the larger of both directions.", ""),
    "assd": (OF_DISTANCE, "Mean distance of the two boundaries.", ""),
    "surface_dice_1": (SHARE, "Share of both boundaries within 1 % of the image's longer side.", ""),
    "surface_dice_2": (SHARE, "Share of both boundaries within 2 % of the image's longer side.", ""),
    "brier": (SHARE, "Mean squared error of the probability map. Less is better.", ""),
}
HISTORY: dict[str, Column] = {
    **OF_TRIAL,
    "unit": ("", 'What a step is: "round", "epoch" or "stage".', ""),
    "step": ("", "Number of the step, from 1.", ""),
    "train_loss": ("", "Loss on the training images.", "The approach doesn't report it."),
    "validation_loss": ("", "Loss on the validation images.", "The approach doesn't report it."),
    "train_accuracy": (
        SHARE,
        "Share of the training pixels that are right.",
        "The approach doesn't report it.",
    ),
    "validation_accuracy": (
        SHARE,
        "Share of the validation pixels that are right.",
        "The approach doesn't report it.",
    ),
    "validation_dice": (SHARE, "Mean Dice of the validation images.", "The approach doesn't report it."),
}
TRAINING: dict[str, Column] = {
    **OF_TRIAL,
    "seconds": ("s", "Time of the training, without scoring.", ""),
    "unit": ("", 'What is counted in the next column: "images" or "rows" (of the table of pixels).', ""),
    "items": ("as in `unit`", "How many went through training. Each epoch counts.", ""),
    "items_per_s": ("as in `unit`, per s", "`items` divided by `seconds`.", ""),
    "parameters": ("", "Fitted numbers.", "The approach can't tell."),
    "best_step": ("", "Step that was kept.", "There are no steps to choose from."),
    "peak_memory_mib": ("MiB", "Largest memory: of the process on a CPU, of PyTorch on a GPU.", ""),
    "wait_share": (
        SHARE,
        "Share of the time that was spent waiting for images.",
        "The approach is no network.",
    ),
    "reserved_memory_mib": ("MiB", "Largest memory that PyTorch held on a GPU.", ON_CPU),
    "process_memory_mib": ("MiB", "Memory of the process on a GPU after the training.", NO_NVML_HERE),
    "host_memory_mib": ("MiB", "Largest memory of the process on the host.", OLDER),
    "busy_share": (
        SHARE,
        "Share of the time in which a GPU computed, as its driver counts it.",
        NO_NVML_HERE,
    ),
    "accumulation_steps": (
        "",
        "Parts of a batch whose gradients are added up before a step, so that it fits into memory.",
        "The approach is no network.",
    ),
}
TIMINGS: dict[str, Column] = {
    "approach": APPROACH,
    "stage": (
        "",
        'Part of a prediction. "decode" reads the file. "whole" is all from "prepare" to "finish".',
        "",
    ),
    **SETTING,
    "copies": ("", "True if copies between host and device are in the time.", ""),
    **IMAGE_SIZE,
    "median_ms": ("ms", "Median time of a call.", ""),
    "iqr_ms": ("ms", "Interquartile range of the time of a call.", ""),
    "p90_ms": ("ms", "90th percentile of the time of a call.", ""),
    "images_per_s": ("images/s", "`batch_size` divided by the median time.", ""),
    "peak_memory_mib": ("MiB", "Largest memory: of the process on a CPU, of PyTorch on a GPU.", NOT_WHOLE),
    "joules_per_image": (
        "J",
        "Energy of the device for an image. On a GPU: of the whole board, also what it takes at rest.",
        f"{NOT_WHOLE} Or the device shows no counter.",
    ),
    "gflops": (
        "GFLOP",
        "Operations of an image. A multiply-add counts as 2.",
        f"{NOT_WHOLE} Or none are counted, as for trees.",
    ),
    "peak_gflops_per_s": (
        "GFLOP/s",
        "Speed of a large matrix product in the same process and precision.",
        "As `gflops`.",
    ),
    "peak_share": (SHARE, "`gflops` x `images_per_s` / `peak_gflops_per_s`.", "As `gflops`."),
    "compile_s": (
        "s",
        "Time of `torch.compile` before the first prediction.",
        f"{NOT_WHOLE} Or nothing was compiled.",
    ),
    "repeats": ("", "Timed calls.", ""),
    "tuned": ("", "False if networks ran as they are: no folding, no CUDA graph.", OLDER),
    "graph": ("", 'CUDA graph: "replayed", "in part" (some stages), "none", or "failed: REASON".', NOT_SAID),
    "folded": ("", 'Whether batch norms were folded into convolutions: "yes" or "no".', NOT_SAID),
    "deterministic": ("", '"yes" with deterministic algorithms, as scores are made, else "no".', OLDER),
    "device_images_per_s": ("images/s", 'Throughput without "prepare" and "finish".', NOT_ALONE),
    "reserved_memory_mib": ("MiB", "Largest memory that PyTorch held on a GPU.", f"{NOT_WHOLE} {ON_CPU}"),
    "process_memory_mib": ("MiB", "Memory of the process on a GPU, with its CUDA context.", NO_NVML),
    "host_memory_mib": ("MiB", "Largest memory of the process on the host.", NOT_WHOLE),
    "host_joules_per_image": ("J", "Energy of the processors for an image.", f"{NOT_WHOLE} {NO_COUNTER}"),
    "sm_clock_mhz": ("MHz", "Clock of the GPU's multiprocessors: the median over rounds.", NO_NVML),
    "power_w": ("W", "Power of the GPU: the median over rounds.", NO_NVML),
    "temperature_c": ("°C", "Highest temperature of the GPU.", NO_NVML),
    "throttle": ("", "What held the GPU's clock down in any round.", f"{NO_NVML} Or nothing did."),
    "void_rounds": ("", "Rounds measured again: the clock was below 95 % of its median.", NO_NVML),
}
TIMING_PAIRS: dict[str, Column] = {
    **SETTING,
    **IMAGE_SIZE,
    "approach": APPROACH,
    "other": ("", "The approach that it is compared with. In an A/A row it is the same one.", ""),
    "kind": ("", '"A/A": two processes of one approach. "A/B": two approaches.', ""),
    "rounds": ("", "Number of rounds. Each gives one ratio.", ""),
    "ratio": (
        "",
        "Median over rounds of the time of `other` / the time of `approach`. Above 1: `approach` is faster.",
        "",
    ),
    "low": ("", "Smallest ratio of a round.", ""),
    "high": ("", "Largest ratio of a round.", ""),
    "distinguishable": (
        "",
        "True if the ratio is further from 1 than any A/A ratio of both.",
        "In A/A rows, and without them.",
    ),
}
CALIBRATION: dict[str, Column] = {
    "approach": APPROACH,
    "dataset": DATASET,
    "fold": FOLD,
    "seed": SEED,
    "bin": ("", "Number of the bin of probabilities, from 0.", ""),
    "low": (SHARE, "Lower edge of the bin, which is in it.", ""),
    "high": (SHARE, "Upper edge of the bin. Only the last bin includes it.", ""),
    "count": ("pixels", "Pixels of all scored images in the bin.", ""),
    "mean_probability": (SHARE, "Mean predicted probability of these pixels.", "The bin has no pixel."),
    "lung_share": (SHARE, "Share of these pixels that is lung in the true masks.", "The bin has no pixel."),
}
IMPORTANCE: dict[str, Column] = {
    **OF_TRIAL,
    "stage": ("", "Stage of the approach.", ""),
    "column": (
        "",
        'Input of the regressor as KIND:NAME. "relu1_2@64:3" is channel 3 of that layer at 64 pixels a side.',
        "",
    ),
    "share": (SHARE, "Its share of the stage's gain. The gain is the loss that splits at it remove.", ""),
}
OF_PAIRS = 'Only "paired" rows have it.'
STATISTICS: dict[str, Column] = {
    "dataset": DATASET,
    "approach": (
        "",
        "Name of the row in the spec.",
        '"friedman" and "critical-difference": they are of all approaches.',
    ),
    "other": ("", "The approach that it is compared with.", OF_PAIRS),
    "metric": ("", 'Column of `scores.csv`, or "f1" for pooled F1.', ""),
    "kind": ("", "What the row is: see below.", ""),
    "primary": ("", "True for Dice, which was chosen in advance. Only its p values are corrected.", OF_PAIRS),
    "n": ("patients", 'Number of patients. "pooled" counts images.', ""),
    "value": (
        "as `metric`",
        "The mean, the difference `approach` minus `other`, the rank or the test's statistic.",
        "",
    ),
    "low": (
        "as `metric`",
        "Lower end of the 95 % interval.",
        '"pooled", "rank", "friedman" and "critical-difference" have none. Nor has a single patient.',
    ),
    "high": ("as `metric`", "Upper end of the 95 % interval.", "As `low`."),
    "median": ("as `metric`", "Median over patients.", "As `low`."),
    "sd": ("as `metric`", "Standard deviation over patients.", "As `low`."),
    "p5": ("as `metric`", "5th percentile over patients.", "As `low`."),
    "p95": ("as `metric`", "95th percentile over patients.", "As `low`."),
    "seeds": ("", "Number of seeds.", '"rank", "friedman" and "critical-difference" have none.'),
    "seed_sd": (
        "as `metric`",
        "Standard deviation of the means of the seeds.",
        "There is one seed, or two approaches have different ones.",
    ),
    "p_value": (
        "",
        'Permutation test: the mean difference is 0. In the row "friedman": all rank alike.',
        'Only "paired" rows and "friedman" have it.',
    ),
    "p_holm": ("", "`p_value`, corrected by Holm over all pairs and datasets.", "`primary` is not true."),
    "wilcoxon_p": ("", "Wilcoxon's signed-rank test.", OF_PAIRS),
    "nemenyi_p": (
        "",
        "Nemenyi's test of mean ranks.",
        "There are fewer than three approaches, or `primary` is not true.",
    ),
    "rank_biserial": ("-1 to 1", "Effect size of matched pairs. Above 0, `approach` is better.", OF_PAIRS),
    "better": ("patients", "Patients on whom `approach` is better than `other`.", OF_PAIRS),
    "worse": ("patients", "Patients on whom it is worse.", OF_PAIRS),
    "tied": ("patients", "Patients on whom both are equal.", OF_PAIRS),
}
# Metrics of scores.csv whose mean over patients is a column of summary.csv.
AVERAGED = (
    *("iou", "accuracy", "precision", "recall", "specificity", "hd95", "assd", "hausdorff", "surface_dice_1"),
    *("surface_dice_2", "dice_left", "dice_right", "area_error", "brier"),
)
EMPTY = {
    **dict.fromkeys(("hd95", "assd", "hausdorff"), NO_DISTANCES),
    **dict.fromkeys(("dice_left", "dice_right"), "No true mask has such a lung."),
}
SUMMARY: dict[str, Column] = {
    "approach": APPROACH,
    "dataset": DATASET,
    "weights": ("", 'What the approach starts from: "ImageNet", "random weights" or "none".', ""),
    "n": ("patients", "Number of patients.", ""),
    "dice": (SHARE, "Mean Dice over patients.", ""),
    "dice_low": (SHARE, "Lower end of its 95 % interval.", "There is one patient."),
    "dice_high": (SHARE, "Upper end of its 95 % interval.", "There is one patient."),
    "group": (
        "",
        "Letters: approaches that share one are not separated by the tests.",
        "Not all approaches were compared with each other.",
    ),
    "dice_median": (SHARE, "Median Dice over patients.", ""),
    "dice_sd": (SHARE, "Standard deviation of Dice over patients.", "There is one patient."),
    "dice_p5": (SHARE, "5th percentile of Dice over patients.", ""),
    "dice_p95": (SHARE, "95th percentile of Dice over patients.", ""),
    "seeds": ("", "Number of seeds.", ""),
    "dice_seed_sd": (SHARE, "Standard deviation of the mean Dice of the seeds.", "There is one seed."),
    "pooled_f1": (SHARE, "F1 of all pixels of all images together.", ""),
    "distance_unit": ("", '"px", "mm", or "mm/px" if images differ.', ""),
    **{
        name: (SCORES[name][0], f"Mean of `{name}` in `scores.csv` over patients.", EMPTY.get(name, ""))
        for name in AVERAGED
    },
    "hd95_low": (OF_DISTANCE, "Lower end of the 95 % interval of `hd95`.", NO_DISTANCES),
    "hd95_high": (OF_DISTANCE, "Upper end of the 95 % interval of `hd95`.", NO_DISTANCES),
    "assd_low": (OF_DISTANCE, "Lower end of the 95 % interval of `assd`.", NO_DISTANCES),
    "assd_high": (OF_DISTANCE, "Upper end of the 95 % interval of `assd`.", NO_DISTANCES),
    "calibration_error": (SHARE, "Expected calibration error. Less is better.", ""),
    "training_seconds": ("s", "Mean time of a training.", ""),
    "device": ("", 'What the times are of: "cpu" or "cuda". Each device has a row.', NOT_TIMED),
    "compute_precision": ("", 'Number format of the timed predictions: "float32" or "bfloat16".', NOT_TIMED),
    "layout": ("", 'Memory layout: "contiguous" or "channels-last".', NOT_TIMED),
    "compiled": ("", "True with `torch.compile`.", NOT_TIMED),
    "copies": ("", "True if copies between host and device are in the times.", NOT_TIMED),
    "ms_per_image": ("ms", "Median time of an image at batch size 1.", NOT_AT_ONE),
    "ms_iqr": ("ms", "Interquartile range of that time.", NOT_AT_ONE),
    "ms_p90": ("ms", "90th percentile of that time.", NOT_AT_ONE),
    "best_images_per_s": ("images/s", "Highest throughput of all batch sizes.", NOT_TIMED),
    "best_batch_size": ("images", "Batch size of that throughput.", NOT_TIMED),
    "peak_memory_mib": ("MiB", "Largest memory at batch size 1.", NOT_AT_ONE),
    "joules_per_image": (
        "J",
        "Energy of an image at batch size 1.",
        f"{NOT_AT_ONE} Or the device shows no counter.",
    ),
    "gflops": ("GFLOP", "Operations of an image.", f"{NOT_AT_ONE} Or none are counted, as for trees."),
    "peak_share": (SHARE, "Share of the device's peak speed at batch size 1.", "As `gflops`."),
    "leaks": ("", "Leaks between the sides of the split that the run was allowed.", ""),
}
DESCRIPTIONS = {
    "scores": SCORES,
    "history": HISTORY,
    "training": TRAINING,
    "timings": TIMINGS,
    "timing_pairs": TIMING_PAIRS,
    "calibration": CALIBRATION,
    "importance": IMPORTANCE,
    "statistics": STATISTICS,
    "summary": SUMMARY,
}
