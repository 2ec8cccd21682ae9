"""Datasets that a spec names by a short name.

A new one is a class that derives from `data.sample.Dataset`, in a file of this folder, and one line here. No
dataset imports this module: a line more in it is no change of theirs.
"""

from __future__ import annotations

DATASETS = {
    "covid19-radiography": "lungseg.data.datasets.covid19_radiography:Covid19RadiographyDataset",
    "cxr704": "lungseg.data.datasets.cxr704:Cxr704Dataset",
    "folder": "lungseg.data.datasets.folder:FolderDataset",
    "jsrt": "lungseg.data.datasets.jsrt:JsrtDataset",
    "montgomery": "lungseg.data.datasets.montgomery:MontgomeryDataset",
    "phantom": "lungseg.data.datasets.phantom:PhantomDataset",
    "shenzhen": "lungseg.data.datasets.shenzhen:ShenzhenDataset",
    "truth": "lungseg.data.datasets.truth:TruthDataset",
}
