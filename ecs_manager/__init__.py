"""The ecs-manager Lambda: deploys services and runs tasks in ECS."""
