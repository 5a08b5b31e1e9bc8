"""One file for each revision, in order; none is changed once it has been released."""
