"""One command line as many jobs: a folder of parts, tasks that are command lines, engines that run them."""
