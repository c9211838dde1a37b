"""`python -m glue_jobs` is `ragstream`."""

from glue_jobs.cli.main import main

if __name__ == "__main__":
    main()
