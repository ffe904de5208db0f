"""What commands share about ECS: the manager's wire contract, rollouts, and references to images."""
