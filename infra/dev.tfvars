# Profiling is off here. Captures on demand, for whoever has the token (token_arn), are stored all the same.
environment       = "dev"
profiling_enabled = false
desired_count     = 1
cpu               = 256
memory            = 512
