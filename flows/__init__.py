"""Prefect: where, when, how often. The flows run `dvc repro -s <stage>` and know nothing of images."""
