# As refusals.tftest.hcl, of the module that one service uses.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  environment    = "prod"
  enabled        = true
  service_name   = "checkout"
  bucket         = "stl-debugging-prod"
  task_role_name = "checkout-task"
}

run "interval_shorter_than_duration" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    profile_interval = "1m"
  }

  expect_failures = [var.profile_interval]
}

run "interval_that_is_none" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    profile_interval = "5"
  }

  expect_failures = [var.profile_interval]
}

run "duration_that_is_none" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    profile_duration = "two minutes"
  }

  expect_failures = [var.profile_duration]
}

run "duration_too_short" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    profile_duration = "100ms"
  }

  expect_failures = [var.profile_duration]
}

run "interval_too_long" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    profile_interval = "9000h"
  }

  expect_failures = [var.profile_interval]
}

run "service_that_may_write_everywhere" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    service_name = "*"
  }

  expect_failures = [var.service_name]
}

run "bucket_of_another_environment" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    bucket = "stl-debugging-dev"
  }

  expect_failures = [var.bucket]
}

run "buckets_of_everyone" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    bucket = "*-prod"
  }

  expect_failures = [var.bucket]
}

run "role_by_its_arn" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    task_role_name = "arn:aws:iam::123456789012:role/checkout-task"
  }

  expect_failures = [var.task_role_name]
}

run "owner_that_is_no_account" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    bucket_owner = "me"
  }

  expect_failures = [var.bucket_owner]
}

run "kind_that_does_not_exist" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    profile_types = ["cpu", "heap"]
  }

  expect_failures = [var.profile_types]
}

run "no_kinds" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    profile_types = []
  }

  expect_failures = [var.profile_types]
}

run "a_kind_twice" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    profile_types = ["cpu", "cpu"]
  }

  expect_failures = [var.profile_types]
}

run "a_token_in_plain_text" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    token_arn = "correct-horse-battery"
  }

  expect_failures = [output.container]
}

run "spool_nowhere" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    spool_directory = "spool"
  }

  expect_failures = [var.spool_directory]
}

run "spool_without_room" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    spool_mib = 0
  }

  expect_failures = [var.spool_mib]
}
