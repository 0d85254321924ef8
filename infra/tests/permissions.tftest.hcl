# Who may do what: the task puts under its prefix, readers list and read, ECS reads the token.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  environment       = "staging"
  profiling_enabled = true
  service_name      = "watcher"
  image             = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/sample-app:1"
  subnet_ids        = ["subnet-1"]
}

run "the_task_puts_and_nothing_else" {
  command = plan

  assert {
    condition = jsondecode(module.profiling[0].upload_policy).Statement == [{
      Effect   = "Allow"
      Action   = "s3:PutObject"
      Resource = "arn:aws:s3:::stl-debugging-staging/profiles/watcher/*"
    }]
    error_message = "One permission: s3:PutObject under profiles/{service}/ of this bucket."
  }
  assert {
    condition = jsondecode(aws_iam_role.task[0].assume_role_policy).Statement == [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = "123456789012" } }
    }]
    error_message = "Only ECS tasks of this account get the role."
  }
}

run "readers_list_and_read" {
  command = plan

  variables {
    reader_role_names = ["on-call"]
  }

  assert {
    condition = {
      for statement in jsondecode(aws_iam_policy.read_profiles.policy).Statement : statement.Action => statement.Resource
      if statement.Effect == "Allow"
      } == {
      "s3:ListBucket" = "arn:aws:s3:::stl-debugging-staging"
      "s3:GetObject"  = "arn:aws:s3:::stl-debugging-staging/profiles/*"
    }
    error_message = "Readers list and read profiles, and do nothing else."
  }
  assert {
    condition     = aws_iam_role_policy_attachment.readers["on-call"].role == "on-call"
    error_message = "The roles that are named are readers."
  }
}

run "ecs_reads_the_token" {
  command = plan

  variables {
    token_arn     = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:profiling-AbCdEf:token::"
    token_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/1"
  }

  assert {
    condition = [
      for statement in jsondecode(module.sample_app[0].token_policy).Statement : statement.Resource
      ] == [
      ["arn:aws:secretsmanager:eu-west-1:123456789012:secret:profiling-AbCdEf"],
      ["arn:aws:kms:eu-west-1:123456789012:key/1"],
    ]
    error_message = "Only this secret, whichever of its values, and only its key."
  }
}

run "without_a_token_ecs_reads_none" {
  command = plan

  assert {
    condition     = module.sample_app[0].token_policy == null
    error_message = "Without a token there is no permission to read one."
  }
}
