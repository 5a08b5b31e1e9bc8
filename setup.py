"""Which packages are installed: every folder of `incomes_plugin/`, and every folder of `server/` as `incomes_server`.

pyproject.toml has all else. It cannot say this: its own search does not know the second name.
"""

from setuptools import find_packages, setup

PACKAGES = [
    *find_packages(include=["incomes_plugin", "incomes_plugin.*"]),
    "incomes_server",
    *(f"incomes_server.{name}" for name in find_packages("server")),
]

if __name__ == "__main__":
    setup(packages=PACKAGES)
