"""The services of describe-and-dissect, one package each; none imports another."""
