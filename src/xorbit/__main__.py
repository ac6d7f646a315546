"""`python -m xorbit`: the same as the command `xorbit`. Nothing else may enter."""

from xorbit.cli.main import main

if __name__ == "__main__":
    main()
