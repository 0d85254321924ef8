# What cannot be used is refused while it is planned. tests/infra/test_refusals.py has the messages.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  environment       = "prod"
  profiling_enabled = true
  image             = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/sample-app:1"
  subnet_ids        = ["subnet-1"]
}

run "unknown_environment" {
  command = plan

  variables {
    environment = "qa"
  }

  expect_failures = [var.environment]
}

run "bucket_prefix_that_s3_refuses" {
  command = plan

  variables {
    bucket_prefix = "Debugging"
  }

  expect_failures = [var.bucket_prefix]
}

run "profiles_that_expire_at_once" {
  command = plan

  variables {
    expiry_days = 0
  }

  expect_failures = [var.expiry_days]
}

run "half_a_day" {
  command = plan

  variables {
    expiry_days = 0.5
  }

  expect_failures = [var.expiry_days]
}

run "image_without_a_tag" {
  command = plan

  variables {
    image = "localhost:5000/sample-app"
  }

  expect_failures = [var.image]
}

run "no_image" {
  command = plan

  variables {
    image = null
  }

  expect_failures = [var.image]
}

run "no_subnets" {
  command = plan

  variables {
    subnet_ids = []
  }

  expect_failures = [var.subnet_ids]
}

run "two_services" {
  command = plan

  variables {
    existing_service = { task_role_name = "checkout-task" }
  }

  expect_failures = [var.run_sample_app]
}
