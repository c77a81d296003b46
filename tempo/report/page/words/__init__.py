"""Every word of the pages, in English and Japanese, as typed constants. A test finds what is missing."""
