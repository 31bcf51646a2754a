"""Token counts where the provider reported none."""
