# As refusals.tftest.hcl, of the sample app.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name               = "sample-app-prod"
  image              = "sample-app:1"
  task_role_arn      = "arn:aws:iam::123456789012:role/task"
  subnet_ids         = ["subnet-1"]
  security_group_ids = []
  assign_public_ip   = false
  port               = 8000
  desired_count      = 1
  cpu                = 512
  memory             = 1024
  stop_timeout       = 30
  log_retention_days = 30
  tags               = {}
  profiling = {
    arguments  = []
    settings   = []
    secrets    = []
    spool      = { directory = "/var/spool/profiling", mib = 64 }
    memory_mib = 128
  }
}

run "killed_before_the_last_upload" {
  command = plan

  module {
    source = "./modules/sample_app"
  }

  variables {
    stop_timeout = 2
  }

  expect_failures = [var.stop_timeout]
}

run "longer_than_fargate_waits" {
  command = plan

  module {
    source = "./modules/sample_app"
  }

  variables {
    stop_timeout = 600
  }

  expect_failures = [var.stop_timeout]
}

run "cpu_that_fargate_has_not" {
  command = plan

  module {
    source = "./modules/sample_app"
  }

  variables {
    cpu = 300
  }

  expect_failures = [var.cpu]
}

run "memory_that_does_not_go_with_it" {
  command = plan

  module {
    source = "./modules/sample_app"
  }

  variables {
    memory = 512
  }

  expect_failures = [var.memory]
}

run "fewer_tasks_than_none" {
  command = plan

  module {
    source = "./modules/sample_app"
  }

  variables {
    desired_count = -1
  }

  expect_failures = [var.desired_count]
}

run "a_name_that_ecs_refuses" {
  command = plan

  module {
    source = "./modules/sample_app"
  }

  variables {
    name = "sample.app"
  }

  expect_failures = [var.name]
}

run "a_name_that_is_too_long_for_its_roles" {
  command = plan

  module {
    source = "./modules/sample_app"
  }

  variables {
    name = "a-service-whose-name-has-one-letter-more-than-it-may-ab"
  }

  expect_failures = [var.name]
}

run "a_port_of_root" {
  command = plan

  module {
    source = "./modules/sample_app"
  }

  variables {
    port = 80
  }

  expect_failures = [var.port]
}
