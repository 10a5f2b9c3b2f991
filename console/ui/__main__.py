"""`python -m console.ui` compiles the translations and names what is untranslated."""

import sys

from console.ui.i18n import main

sys.exit(main())
