"""Packages of a wheel, which a pyproject.toml can't name so: those of lungseg/, and the specs beside it."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lungseg", "lungseg.*"]), "lungseg.benchmarks"],
    package_dir={"lungseg.benchmarks": "benchmarks"},
)
