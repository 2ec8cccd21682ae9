"""Say what each figure shows: for captions and alternative texts of the page, and for the docs."""

CAPTIONS: dict[str, str] = {
    "samples": "Eight images with the outlines of their true masks.",
    "pipeline": "One image on its way through A and through B: each step with what the run stored of it.",
    "feature-maps": "All feature maps of one image, the most used first where that is known.",
    "stage-maps": "One image's map after each stage of the context approach.",
    "curves": "Loss, share of right pixels, and Dice during training. A ring marks the step that was kept.",
    "cases": "The best, the median and the worst image, and each approach's own worst.",
    "dice": "Dice of each image, a row for each approach.",
    "accuracy-time": "Mean Dice against the time of an image. Up and left is better.",
    "transfer": (
        "Mean Dice by what was trained on and tested on. Red: lower than trained on the tested dataset."
    ),
    "learning": "Mean Dice against the number of training images, with 95 % intervals. A dot is one draw.",
    "differences": "Paired differences of mean Dice with 95 % intervals. A filled mark: p ≤ .05 (Holm).",
    "dice-violins": "How Dice is distributed, and how the same images do with the next approach.",
    "critical-difference": (
        "Mean rank per image. A bar joins what Nemenyi's test doesn't separate. "
        "It asks about ranks, the tables about mean Dice, so groups may differ."
    ),
    "rank-stability": "How often each approach has which rank in bootstrap samples of the patients.",
    "lung-area": "Predicted minus true area against their mean (Bland and Altman).",
    "reliability": "Predicted probability against the share of pixels that is lung. On the diagonal is best.",
    "throughput": "Images a second against the batch size.",
    "stages": "Where the time of a prediction goes.",
    "importance": "Which inputs the trees of a pixel regressor use.",
    "ablation": "Paired difference of each row from the first row of its group, with its 95 % interval.",
}
