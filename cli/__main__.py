"""`python -m modelwright.cli`."""

from modelwright.cli.main import main

if __name__ == "__main__":
    main()
