"""`tempo demo --owner`: rent the box out, keep the keys at home. The trust story, from end to end."""
