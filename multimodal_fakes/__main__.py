"`python -m multimodal_fakes` is the command `mmfakes`"
import sys

from multimodal_fakes.cli import main

if __name__ == "__main__": sys.exit(main())
