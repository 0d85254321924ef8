locals {
  # The sample app takes 60 under load, without the profiler.
  application_mib = 128
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  task_role_arn            = var.task_role_arn
  execution_role_arn       = aws_iam_role.execution.arn
  tags                     = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = "X86_64"
  }

  # Both are empty at the start of a task; the image says whose they are (VOLUME at the same path). A restarted container finds
  # its spool again, another task does not.
  volume {
    name = "profiling-spool"
  }
  volume {
    name = "tmp"
  }

  container_definitions = jsonencode([{
    name              = "app"
    image             = var.image
    essential         = true
    command           = concat(["python", "-m", "sample_app", "--host=0.0.0.0", "--port=${var.port}"], var.profiling.arguments)
    environment       = var.profiling.settings
    secrets           = var.profiling.secrets
    cpu               = var.cpu # All of the task's, whatever else may come to run beside it.
    memoryReservation = local.application_mib + var.profiling.memory_mib
    portMappings      = [{ containerPort = var.port, hostPort = var.port, protocol = "tcp" }]
    mountPoints = [
      { sourceVolume = "profiling-spool", containerPath = var.profiling.spool.directory, readOnly = false },
      { sourceVolume = "tmp", containerPath = "/tmp", readOnly = false },
    ]
    readonlyRootFilesystem = true
    linuxParameters        = { initProcessEnabled = true, capabilities = { drop = ["ALL"] } }
    # The last window is stored after the last request has ended. ECS would kill after 30 seconds anyway; here it is said.
    stopTimeout   = var.stop_timeout
    restartPolicy = { enabled = true, restartAttemptPeriod = 60 }
    healthCheck = {
      command     = ["CMD", "python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:${var.port}/health', timeout=3)"]
      interval    = 15
      timeout     = 5
      retries     = 3
      startPeriod = 15
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = data.aws_region.current.region
        awslogs-stream-prefix = "app"
      }
    }
  }])
}

resource "aws_ecs_service" "this" {
  name                   = var.name
  cluster                = aws_ecs_cluster.this.id
  task_definition        = aws_ecs_task_definition.this.arn
  desired_count          = var.desired_count
  launch_type            = "FARGATE"
  platform_version       = "LATEST"
  enable_execute_command = false
  propagate_tags         = "SERVICE"
  tags                   = var.tags

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = var.security_group_ids
    assign_public_ip = var.assign_public_ip
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  # Without them its first tasks fail to start.
  depends_on = [aws_iam_role_policy.token, aws_iam_role_policy_attachment.execution]
}
