"""``python -m coblend``."""

from coblend.cli.main import main

if __name__ == "__main__":
    main(prog_name="coblend")
