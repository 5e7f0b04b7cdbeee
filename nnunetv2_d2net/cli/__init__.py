"""The command ``d2net``: one file per subcommand, thin over nnU-Net's own entry points."""
