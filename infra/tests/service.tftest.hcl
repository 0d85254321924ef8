# The sample app as a service: how its container is started, and what it is told of profiling.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  environment       = "prod"
  profiling_enabled = true
  image             = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/sample-app:1"
  subnet_ids        = ["subnet-1", "subnet-2"]
}

run "profiling_on" {
  command = plan

  assert {
    condition = jsondecode(module.sample_app[0].container_definitions)[0].command == [
      "python", "-m", "sample_app", "--host=0.0.0.0", "--port=8000", "--enable-profiling"
    ]
    error_message = "The flag switches profiling on."
  }
  assert {
    condition = { for pair in jsondecode(module.sample_app[0].container_definitions)[0].environment : pair.name => pair.value } == {
      PROFILE_ENVIRONMENT     = "prod"
      PROFILE_SERVICE_NAME    = "sample-app"
      PROFILE_S3_BUCKET       = "stl-debugging-prod"
      PROFILE_S3_BUCKET_OWNER = "123456789012"
      PROFILE_INTERVAL        = "5m"
      PROFILE_DURATION        = "2m"
      PROFILE_TYPES           = "cpu,block,mutex,trace"
      PROFILE_SPOOL_DIR       = "/var/spool/profiling"
      PROFILE_SPOOL_MAX_BYTES = "64MiB"
    }
    error_message = "The container is told where to, how often and how long."
  }
}

run "profiling_off" {
  command = plan

  variables {
    environment       = "dev"
    profiling_enabled = false
    cpu               = 256
    memory            = 512
  }

  assert {
    condition     = !contains(jsondecode(module.sample_app[0].container_definitions)[0].command, "--enable-profiling")
    error_message = "Off is off."
  }
  assert {
    condition     = !contains([for pair in jsondecode(module.sample_app[0].container_definitions)[0].environment : pair.name], "PROFILE_ENABLED")
    error_message = "Nothing else switches it on."
  }
}

run "the_token_is_a_secret" {
  command = plan

  variables {
    token_arn = "arn:aws:ssm:eu-west-1:123456789012:parameter/profiling/token"
  }

  assert {
    condition = jsondecode(module.sample_app[0].container_definitions)[0].secrets == [
      { name = "PROFILE_TOKEN", valueFrom = "arn:aws:ssm:eu-west-1:123456789012:parameter/profiling/token" }
    ]
    error_message = "ECS puts the token into the container."
  }
  assert {
    condition     = !contains([for pair in jsondecode(module.sample_app[0].container_definitions)[0].environment : pair.name], "PROFILE_TOKEN")
    error_message = "It is in no plain variable."
  }
}

run "what_the_profiler_needs_of_a_task" {
  command = plan

  variables {
    stop_timeout = 60
  }

  assert {
    condition     = jsondecode(module.sample_app[0].container_definitions)[0].stopTimeout == 60
    error_message = "A last upload has its time."
  }
  assert {
    condition     = jsondecode(module.sample_app[0].container_definitions)[0].memoryReservation == 128 + 128
    error_message = "Memory is reserved for the profiler."
  }
  assert {
    condition     = jsondecode(module.sample_app[0].container_definitions)[0].cpu == 512
    error_message = "The task's CPU is reserved for the service and its profiler."
  }
  assert {
    condition     = jsondecode(module.sample_app[0].container_definitions)[0].readonlyRootFilesystem
    error_message = "Nothing is written but into volumes."
  }
  assert {
    condition = { for mount in jsondecode(module.sample_app[0].container_definitions)[0].mountPoints : mount.containerPath => mount.readOnly } == {
      "/var/spool/profiling" = false
      "/tmp"                 = false
    }
    error_message = "The spool is a volume."
  }
}

run "no_service_no_task" {
  command = plan

  variables {
    run_sample_app = false
    image          = null
    subnet_ids     = []
  }

  assert {
    condition     = length(module.sample_app) == 0 && length(module.profiling) == 0 && length(aws_iam_role.task) == 0
    error_message = "The bucket alone is a use, too."
  }
}
