"""Text models behind Amazon SageMaker endpoints: LMI and TGI containers."""
