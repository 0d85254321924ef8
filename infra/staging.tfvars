# As prod, with one task.
environment       = "staging"
profiling_enabled = true
desired_count     = 1
cpu               = 512
memory            = 1024
