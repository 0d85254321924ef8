# A 2-minute window every 5 minutes from each of two tasks.
environment       = "prod"
profiling_enabled = true
desired_count     = 2
cpu               = 512
memory            = 1024
